package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// tablePasses is the number of passes, with deletes in between. The second is for entries
// that the index did not know; entries found after it keep coming, and are reported as
// left.
const tablePasses = 3

// proveByTable passes through the whole table, once for all pending addresses, and deletes
// the entries it finds, until a pass finds none. Calls share passes, which are spaced, so
// that the cost stays bounded however many calls there are: a call may wait for the length
// of two passes before its own begins.
func (t *Table) proveByTable(ctx context.Context, e *deletion) error {
	for pass := 1; ; pass++ {
		left, err := t.prover.find(ctx, t, e.pending)
		if err != nil {
			return fmt.Errorf("look for conntrack entries: %w", err)
		}
		counted := left
		if pass > 1 && e.refused == nil {
			counted = slices.DeleteFunc(slices.Clone(left), func(entry entryRef) bool { return entry.plain })
		}
		counts := make(map[uint32]int)
		e.count(counted, counts)
		var none []uint32
		for addr := range e.pending {
			if counts[addr] == 0 {
				none = append(none, addr)
			}
		}
		e.prove(none, nat.ProofTable)
		switch {
		case len(e.pending) == 0:
			return nil
		case pass == tablePasses:
			remaining := &RemainingError{Left: make(map[netip.Addr]int), Err: e.refused}
			for addr, n := range counts {
				remaining.Left[addrrange.Address(addr)] = n
			}
			return remaining
		}
		t.learnOwn()
		err = t.pool.with(ctx, func(c *conn) error {
			return t.deleteTargets(c, left, e)
		})
		if err != nil {
			return err
		}
	}
}

// tablePass is one walk through the table for all calls that joined before it
// began.
type tablePass struct {
	want  askedAddrs
	found []entryRef
	err   error
	done  chan struct{}
}

// tableProver runs table passes, one at a time. Callers that come while one runs
// share the next.
type tableProver struct {
	turn   chan struct{} // holds a token; the call that takes it runs a pass
	mu     sync.Mutex
	next   *tablePass
	resume time.Time // earliest time of the next pass
	passes counter
}

func newTableProver() *tableProver {
	p := &tableProver{turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

// find returns the entries that have one of the addresses in either tuple, by a
// pass that begins after the call.
func (p *tableProver) find(ctx context.Context, t *Table, want askedAddrs) ([]entryRef, error) {
	for {
		joined, leads := p.join(want)
		if leads {
			p.lead(ctx, t, joined)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-joined.done:
		}
		switch {
		case joined.err == nil:
			return belonging(joined.found, want), nil
		case leads || !isContextError(joined.err):
			return nil, joined.err
		}
		// The leading call was cancelled; its followers still need an answer.
	}
}

func (p *tableProver) join(want askedAddrs) (joined *tablePass, leads bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil {
		p.next = &tablePass{want: make(askedAddrs, len(want)), done: make(chan struct{})}
		leads = true
	}
	for addr := range want {
		p.next.want[addr] = struct{}{}
	}
	return p.next, leads
}

// lead waits for its turn and runs the pass, for all calls that joined before it began.
func (p *tableProver) lead(ctx context.Context, t *Table, mine *tablePass) {
	defer close(mine.done)
	err := p.wait(ctx)
	p.mu.Lock()
	p.next = nil
	p.mu.Unlock()
	if err != nil {
		mine.err = err
		return
	}
	began := time.Now()
	mine.found, mine.err = t.walk(ctx, mine.want)
	p.passes.Add(1)
	p.mu.Lock()
	p.resume = time.Now().Add(time.Since(began))
	p.mu.Unlock()
	p.turn <- struct{}{}
}

// wait returns with the turn taken, unless ctx ended first. The pause between passes is at
// least as long as the last one took, so passes take half a core at most.
func (p *tableProver) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.turn:
	}
	p.mu.Lock()
	gap := time.Until(p.resume)
	p.mu.Unlock()
	if err := rest(ctx, gap); err != nil {
		p.turn <- struct{}{}
		return err
	}
	return nil
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func belonging(found []entryRef, want askedAddrs) []entryRef {
	var mine []entryRef
	for i := range found {
		for _, addr := range found[i].owners.list() {
			if want.Contains(addr) {
				mine = append(mine, found[i])
				break
			}
		}
	}
	return mine
}

// walk passes through the table once. A kernel-side filter (CTA_FILTER) would need a walk
// for each address and each of its four positions. For a single address that took 1.6 times
// as long as a dump at 10,000 entries and 0.7 to 0.9 times at 100,000 and more, so there is
// only the dump.
func (t *Table) walk(ctx context.Context, want askedAddrs) (found []entryRef, err error) {
	err = t.pool.with(ctx, func(c *conn) error {
		return c.dump(func(flows []flow) error {
			found = t.pick(found, flows, want)
			return nil
		})
	})
	return found, err
}

// pick appends the entries that have one of the addresses.
func (t *Table) pick(to []entryRef, flows []flow, want askedAddrs) []entryRef {
	for i := range flows {
		if o := flows[i].owners(want); o.n > 0 {
			to = append(to, t.index.target(&flows[i], o))
		}
	}
	return to
}
