package conntrack

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/cpubarrier"
	"github.com/sessiond/sessiond/internal/nat"
)

// beginnings count the entries that busy addresses begin, until somebody looks at each.
type beginnings struct {
	least uint32            // entries of a busy address; 0: nobody counts
	until map[uint32]uint32 // of busy addresses, the entries that may begin before the next look
	due   map[uint32]struct{}
	wake  chan struct{} // holds a token when an address is due
}

func newBeginnings() beginnings {
	return beginnings{until: map[uint32]uint32{}, due: map[uint32]struct{}{}, wake: make(chan struct{}, 1)}
}

// grew takes the new count of an address after an entry was added.
func (b *beginnings) grew(addr, count uint32) {
	if b.least == 0 || count < b.least {
		return
	}
	if left, busy := b.until[addr]; busy && left > 1 {
		b.until[addr] = left - 1
		return
	}
	b.until[addr] = b.least // until LookAgain says
	b.due[addr] = struct{}{}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// shrank takes the new count of an address after an entry was removed. One that flaps
// around the bound is not forgotten.
func (b *beginnings) shrank(addr, count uint32) {
	if count < b.least-b.least/8 && len(b.until) > 0 {
		delete(b.until, addr)
		delete(b.due, addr)
	}
}

// CountBegun counts from now on the entries that addresses with at least so many begin; 0
// for none. It makes every address with that many due.
func (t *Table) CountBegun(least int) {
	x := t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if uint32(least) == x.begun.least {
		return
	}
	x.begun.least = uint32(least)
	clear(x.begun.until)
	clear(x.begun.due)
	for addr, slot := range x.byAddr {
		x.begun.grew(addr, x.owners.At(slot).opened)
	}
}

// Begun signals that an address is due for a look: read ListBegun. It needs Run.
func (t *Table) Begun() <-chan struct{} { return t.index.begun.wake }

// ListBegun lists, in order, the addresses that are due, and forgets that they are. Call
// LookAgain for each.
func (t *Table) ListBegun() []netip.Addr {
	b := &t.index.begun
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	list := make([]netip.Addr, 0, len(b.due))
	for addr := range b.due {
		list = append(list, addrrange.Address(addr))
	}
	clear(b.due)
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// LookAgain makes an address due when it has begun so many more entries, if it has at least
// as many as CountBegun says.
func (t *Table) LookAgain(inside netip.Addr, after int) {
	addr, ok := fromAddr(inside)
	if !ok || after < 1 {
		return
	}
	b := &t.index.begun
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	if _, busy := b.until[addr]; busy {
		b.until[addr] = uint32(after)
	}
}

// SettledEntries calls fn with the entries that have one of the addresses in either tuple,
// as Entries does, and leaves none out: it waits for packets that are on their way through
// the kernel, and takes events, or a whole pass, as Delete does for its proof. An entry that
// it does not yield did not exist when it was called, or has ended.
func (t *Table) SettledEntries(ctx context.Context, inside []netip.Addr, fn func(Entry) error) (nat.Proof, error) {
	set, err := newAsked(inside)
	if err != nil {
		return nat.NotProved, err
	}
	if err := cpubarrier.Wait(ctx); err != nil {
		return nat.NotProved, err
	}
	proof := nat.ProofIndex
	found, err := t.known(ctx, set)
	if err != nil {
		proof = nat.ProofTable
		if found, err = t.prover.find(ctx, t, set); err != nil {
			return nat.NotProved, err
		}
	}
	found = once(found)
	err = t.pool.with(ctx, func(c *conn) error {
		return c.get(found, func(f *flow) error { return fn(f.entry()) })
	})
	return proof, err
}
