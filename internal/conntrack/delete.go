package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// proofTries bounds how often Prove looks and deletes again.
	proofTries = 5
	// targetsPerStep bounds the memory a delete of many addresses takes.
	targetsPerStep = 8192
)

// Delete ends every entry that has one of the addresses in either tuple, and
// proves it: Flush, then Prove. It returns how many entries were deleted for
// each address; one of two addresses counts for both, and an address without any
// has a 0. The counts are right with an error too. The caller must have cut the addresses off before, or new
// entries come as old ones go.
func (t *Table) Delete(ctx context.Context, inside []netip.Addr) (map[netip.Addr]int, error) {
	deleted, err := t.Flush(ctx, inside)
	if err != nil {
		return deleted, err
	}
	more, err := t.Prove(ctx, inside)
	for addr, n := range more {
		deleted[addr] += n
	}
	return deleted, err
}

// Flush deletes the entries of the addresses that the index knows, at the cost
// of those entries alone: the table's size does not matter. It proves nothing.
func (t *Table) Flush(ctx context.Context, inside []netip.Addr) (map[netip.Addr]int, error) {
	tally, err := newTally(inside)
	if err != nil {
		return nil, err
	}
	err = t.pool.with(ctx, func(c *conn) error {
		var targets []target
		for addr := range tally.asked {
			targets = t.index.collect(targets, addr)
			if len(targets) < targetsPerStep {
				continue
			}
			if err := t.deleteTargets(c, targets, tally); err != nil {
				return err
			}
			targets = targets[:0]
		}
		return t.deleteTargets(c, targets, tally)
	})
	return tally.result(), tolerable(err)
}

// Prove passes through the whole table, once for all addresses, and deletes
// what it finds, until a pass finds nothing. It gives up with a *LeftError.
// Passes are shared with other calls and spaced, so that the cost stays bounded
// however many calls there are: a call may wait for the length of two passes
// before its own begins.
func (t *Table) Prove(ctx context.Context, inside []netip.Addr) (map[netip.Addr]int, error) {
	tally, err := newTally(inside)
	if err != nil {
		return nil, err
	}
	if len(tally.asked) == 0 {
		return tally.result(), nil
	}
	var refused error
	for try := 0; ; try++ {
		left, err := t.prover.find(ctx, t, tally.asked)
		if err != nil {
			return tally.result(), fmt.Errorf("look for conntrack entries: %w", err)
		}
		if len(left) == 0 {
			return tally.result(), nil
		}
		if try == proofTries {
			return tally.result(), &LeftError{Left: tally.count(left), Err: refused}
		}
		refused = t.pool.with(ctx, func(c *conn) error { return t.deleteTargets(c, left, tally) })
		if tolerable(refused) != nil {
			return tally.result(), refused
		}
	}
}

// DeleteEntry deletes one entry as a dump has shown it. An entry that is gone,
// or replaced by another on the same tuple, is no error.
func (t *Table) DeleteEntry(ctx context.Context, e Entry) error {
	var f flow
	if !f.fromEntry(e) {
		return fmt.Errorf("delete conntrack entry %v: not IPv4", e.Orig)
	}
	targets := []target{t.index.target(&f, owners{})}
	return t.pool.with(ctx, func(c *conn) error {
		return t.deleteTargets(c, targets, tally{})
	})
}

// Probe asks the kernel for the known entries of the addresses and forgets those
// that are gone. The kernel also drops entries that have timed out, which it
// would otherwise do, and tell, up to a minute later. For addresses that wait
// for their last entry; the cost is that of their entries alone.
func (t *Table) Probe(ctx context.Context, inside []netip.Addr) error {
	set, err := newAsked(inside)
	if err != nil {
		return err
	}
	return t.pool.with(ctx, func(c *conn) error {
		for addr := range set {
			gone, err := c.probe(t.index.collect(nil, addr))
			t.index.forget(gone)
			if err != nil {
				return fmt.Errorf("probe conntrack entries of %v: %w", toAddr(addr), err)
			}
		}
		return nil
	})
}

// deleteTargets deletes, counts and forgets.
func (t *Table) deleteTargets(c *conn, targets []target, to tally) error {
	deleted, gone, err := c.delete(targets)
	t.index.forget(deleted)
	t.index.forget(gone)
	to.add(deleted)
	if err != nil {
		return fmt.Errorf("delete conntrack entries: %w", err)
	}
	return nil
}

// tolerable drops the refusal of single entries: whether they matter is for the
// table pass to say.
func tolerable(err error) error {
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// tally counts entries by the addresses asked for.
type tally struct {
	asked   asked
	deleted map[uint32]int
}

func newTally(addrs []netip.Addr) (tally, error) {
	set, err := newAsked(addrs)
	return tally{set, make(map[uint32]int, len(set))}, err
}

func (t tally) add(targets []target) {
	for i := range targets {
		for _, addr := range targets[i].owners.list() {
			if t.asked.contains(addr) {
				t.deleted[addr]++
			}
		}
	}
}

// count counts without adding.
func (t tally) count(targets []target) map[netip.Addr]int {
	other := tally{t.asked, make(map[uint32]int)}
	other.add(targets)
	left := make(map[netip.Addr]int)
	for addr, n := range other.deleted {
		left[toAddr(addr)] = n
	}
	return left
}

// result has every address asked for, with 0 where nothing was deleted.
func (t tally) result() map[netip.Addr]int {
	result := make(map[netip.Addr]int, len(t.asked))
	for addr := range t.asked {
		result[toAddr(addr)] = t.deleted[addr]
	}
	return result
}
