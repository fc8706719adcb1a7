package conntrack

import (
	"maps"
	"net/netip"
	"slices"
)

// crowds are the addresses with more entries of one kind than the bound. An address leaves
// the set once it is an eighth below the bound, so that it does not flap with each entry.
type crowds struct {
	bound uint32 // 0: no bound
	full  map[uint32]struct{}
	wake  chan struct{} // holds a token when the set has changed
}

func newCrowds(bound int, wake chan struct{}) crowds {
	return crowds{bound: uint32(bound), full: make(map[uint32]struct{}), wake: wake}
}

// grew takes the new count of an address after an entry was added.
func (c *crowds) grew(addr, count uint32) {
	if c.bound == 0 || count <= c.bound {
		return
	}
	if _, ok := c.full[addr]; !ok {
		c.full[addr] = struct{}{}
		c.poke()
	}
}

// shrank takes the new count of an address after an entry was removed.
func (c *crowds) shrank(addr, count uint32) {
	if len(c.full) == 0 || count > c.bound-c.bound/8 {
		return
	}
	if _, ok := c.full[addr]; ok {
		delete(c.full, addr)
		c.poke()
	}
}

func (c *crowds) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Crowds signals that an address came above Options.Bound, or is far enough below it again.
// One signal may stand for many changes: read Crowded. It needs Run.
func (t *Table) Crowds() <-chan struct{} { return t.index.opened.wake }

// Crowded lists, in order, the addresses above Options.Bound: by entries that the address
// began, and by entries that others began to it through destination translations. An
// address stays listed until it is an eighth below the bound. The kinds are counted apart,
// so that packets from outside cannot keep a subscriber from beginning entries.
func (t *Table) Crowded() (began, reached []netip.Addr) {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	return t.index.opened.list(), t.index.reached.list()
}

func (c *crowds) list() []netip.Addr {
	list := make([]netip.Addr, 0, len(c.full))
	for _, a := range slices.Sorted(maps.Keys(c.full)) {
		list = append(list, toAddr(a))
	}
	return list
}
