package conntrack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// Idlers returns those of the addresses that have no entry. It serves callers that wait for
// an address's last entry to end. It asks the kernel for the known entries and forgets
// those that are gone. The request also makes the kernel drop timed-out entries, which it
// would otherwise do up to a minute later. While the index is complete, the cost is that of
// these entries alone. Otherwise a pass through the table looks for entries of the
// remaining addresses; a call too soon after such a pass returns none.
func (t *Table) Idlers(ctx context.Context, inside []netip.Addr) ([]netip.Addr, error) {
	set, err := newAsked(inside)
	if err != nil {
		return nil, err
	}
	if err := t.probeKnown(ctx, set); err != nil {
		return nil, err
	}
	maps.DeleteFunc(set, func(addr uint32, _ struct{}) bool { return t.index.count(addr) > 0 })
	if len(set) == 0 {
		return nil, nil
	}
	none, err := t.idlers(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("look for conntrack entries: %w", err)
	}
	list := make([]netip.Addr, len(none))
	for i, addr := range none {
		list[i] = addrrange.Address(addr)
	}
	return list, nil
}

// Probe asks the kernel for the known entries of the addresses and forgets those that are
// gone, so that Count does not include entries that ended without an event.
func (t *Table) Probe(ctx context.Context, inside []netip.Addr) error {
	set, err := newAsked(inside)
	if err != nil {
		return err
	}
	return t.probeKnown(ctx, set)
}

func (t *Table) probeKnown(ctx context.Context, set askedAddrs) error {
	return t.pool.with(ctx, func(c *conn) error {
		for addr := range set {
			gone, err := c.probe(t.index.collect(nil, addr))
			t.index.forget(gone)
			if err != nil {
				return fmt.Errorf("probe conntrack entries of %v: %w", addrrange.Address(addr), err)
			}
		}
		return nil
	})
}

// idlers returns those of the addresses that have no entry, by the index if it is complete,
// else by a pass through the table.
func (t *Table) idlers(ctx context.Context, set askedAddrs) (none []uint32, err error) {
	err = t.syncIndex(ctx, set)
	if err == nil {
		if none, ok := t.index.empty(set); ok {
			return none, nil
		}
	} else if !errors.Is(err, errUnproved) {
		return nil, err
	}
	if !t.patience.begin() {
		return nil, nil
	}
	defer t.patience.end()
	found, err := t.prover.find(ctx, t, set)
	if err != nil {
		return nil, err
	}
	t.index.learn(found)
	for i := range found {
		for _, addr := range found[i].owners.list() {
			delete(set, addr)
		}
	}
	return slices.Collect(maps.Keys(set)), nil
}

// patience limits passes that are not urgent: they take at most idleShare of the time, and
// begin at least idleGap after the last.
type patience struct {
	mu      sync.Mutex
	running bool
	began   time.Time
	resume  time.Time
}

const (
	idleShare = 0.05
	idleGap   = 500 * time.Millisecond
)

// begin reports whether a pass may begin; end must follow it.
func (p *patience) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.running || now.Before(p.resume) {
		return false
	}
	p.running, p.began = true, now
	return true
}

func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := time.Since(p.began)
	p.running, p.resume = false, time.Now().Add(max(idleGap, time.Duration(float64(took)*(1/idleShare-1))))
}

// Entries calls fn, once each, with the entries that have one of the addresses in either
// tuple, from the kernel: at the cost of those alone when the index is complete, else at
// that of a dump. It returns the first error of fn.
func (t *Table) Entries(ctx context.Context, inside []netip.Addr, fn func(Entry) error) error {
	set, err := newAsked(inside)
	if err != nil {
		return err
	}
	found, err := t.known(ctx, set)
	if err != nil {
		return t.dumpOf(ctx, set, fn)
	}
	found = once(found)
	return t.pool.with(ctx, func(c *conn) error {
		return c.get(found, func(f *flow) error { return fn(f.entry()) })
	})
}

// known returns the known entries of addresses, or errUnproved when the index may lack
// some.
func (t *Table) known(ctx context.Context, addrs askedAddrs) (found []entryRef, err error) {
	if err := t.syncIndex(ctx, addrs); err != nil {
		return nil, err
	}
	for addr := range addrs {
		found = t.index.collect(found, addr)
	}
	return found, nil
}

// once leaves out entries that were found under another of their addresses already.
func once(found []entryRef) []entryRef {
	seen := map[key]struct{}{}
	return slices.DeleteFunc(found, func(x entryRef) bool {
		if x.owners.n < 2 {
			return false
		}
		_, again := seen[x.key]
		seen[x.key] = struct{}{}
		return again
	})
}

func (t *Table) dumpOf(ctx context.Context, addrs askedAddrs, fn func(Entry) error) error {
	return t.pool.with(ctx, func(c *conn) error {
		return c.dump(func(flows []flow) error {
			for i := range flows {
				if o := flows[i].owners(addrs); o.n == 0 {
					continue
				}
				if err := fn(flows[i].entry()); err != nil {
					return err
				}
			}
			return nil
		})
	})
}
