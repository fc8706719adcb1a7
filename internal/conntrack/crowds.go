package conntrack

import (
	"maps"
	"net/netip"
	"slices"
)

// crowds are the addresses that have more entries of one kind than a bound. An address that came above
// it is one until it has an eighth less, so that it does not go in and out with each entry.
type crowds struct {
	bound uint32 // 0 for none
	full  map[uint32]struct{}
	wake  chan struct{} // holds a token when an address came or went
}

func newCrowds(bound int, wake chan struct{}) crowds {
	return crowds{bound: uint32(bound), full: make(map[uint32]struct{}), wake: wake}
}

// grew takes the count of an address that has one more entry.
func (c *crowds) grew(addr, count uint32) {
	if c.bound == 0 || count <= c.bound {
		return
	}
	if _, ok := c.full[addr]; !ok {
		c.full[addr] = struct{}{}
		c.poke()
	}
}

// shrank takes the count of an address that has one less.
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

// Crowds tells that an address came above Options.Bound, or is far enough below it again.
// One telling may be of many: look at Crowded. It needs Run.
func (t *Table) Crowds() <-chan struct{} { return t.index.opened.wake }

// Crowded lists the addresses that began more entries than Options.Bound, and those that
// others reached with more through destination translations, or did, and are not an eighth
// below it yet, in their order. Who sends to one cannot so keep it from what it begins.
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
