package lsn

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// Formula is the arithmetic of a group in deterministic mode (RFC 7422): it gives each inside
// address one block, and each block one inside address, from the configuration alone.
//
// Inside addresses are numbered from 0 in the order of the prefixes in the configuration, and
// within a prefix in their own order; the first and the last address of a prefix have a number
// too. Blocks are numbered likewise: by prefix, by outside address, and on each address from
// the lowest port. An inside address has the block with its number. So a prefix that is
// appended, inside or outside, changes nobody's block.
type Formula struct {
	inside, outside []netip.Prefix
	shape           blockLayout
}

// Formula returns the group's formula, whatever its mode.
func (c *GroupConfig) Formula() Formula {
	return Formula{inside: c.Inside, outside: c.Outside, shape: shapeOf(c)}
}

// Block returns the block of an inside address. It returns false for an address of another
// group, and for one beyond the last block, which a valid configuration does not have.
func (f *Formula) Block(inside netip.Addr) (nat.Block, bool) {
	n, ok := numberIn(f.inside, inside)
	if !ok {
		return nat.Block{}, false
	}
	outside, ok := addressAt(f.outside, n/uint64(f.shape.count))
	if !ok {
		return nat.Block{}, false
	}
	first := (f.shape.first + uint32(n%uint64(f.shape.count))) * f.shape.size
	return nat.Block{Outside: outside, First: nat.Port(first), Last: nat.Port(first + f.shape.size - 1)}, true
}

// Inside returns the inside address whose block has an outside port. It returns false if
// there is none: the port is of no pool, of no whole block, or of a spare one.
func (f *Formula) Inside(outside netip.Addr, port nat.Port) (netip.Addr, bool) {
	n, ok := numberIn(f.outside, outside)
	block := uint32(port) / f.shape.size
	if !ok || block < f.shape.first || block >= f.shape.first+f.shape.count {
		return netip.Addr{}, false
	}
	return addressAt(f.inside, n*uint64(f.shape.count)+uint64(block-f.shape.first))
}

// numberIn returns the number of an address in prefixes that do not overlap.
func numberIn(prefixes []netip.Prefix, a netip.Addr) (n uint64, ok bool) {
	for _, p := range prefixes {
		if p.Contains(a) {
			return n + uint64(addrrange.Number(a)-addrrange.Number(p.Addr())), true
		}
		n += addresses(p)
	}
	return 0, false
}

// addressAt is the opposite of numberIn.
func addressAt(prefixes []netip.Prefix, n uint64) (netip.Addr, bool) {
	for _, p := range prefixes {
		if n < addresses(p) {
			return addrrange.Address(addrrange.Number(p.Addr()) + uint32(n)), true
		}
		n -= addresses(p)
	}
	return netip.Addr{}, false
}

// addresses returns the number of addresses of an IPv4 prefix.
func addresses(p netip.Prefix) uint64 { return 1 << (32 - p.Bits()) }

// The engine in deterministic mode.
//
// An address gets its own block or waits. It waits while another address has it: in a binding,
// or a hold, from before the mode or the prefixes changed. The end of a hold frees the block,
// which then becomes fresh: there is no order of free blocks.
//
// Between holders of one address there is no hold. There is no other block for the next one,
// and it begins when the earlier one's elements and conntrack entries are proved to be gone, so
// that nothing of theirs can reach it (RFC 6888 REQ-8 is a SHOULD for this reason).

// ownCell returns the cell of an inside address in deterministic mode, or none. Cells of the
// configured prefixes are numbered as the blocks of a Formula.
func (g *group) ownCell(inside netip.Addr) uint32 {
	n, ok := numberIn(g.config.Inside, inside)
	if !ok || n >= uint64(g.configuredCells()) {
		return none
	}
	return firstCell + uint32(n)
}

// configuredCells returns the number of cells of prefixes that are configured.
func (g *group) configuredCells() (cells uint32) {
	for i := range g.segments {
		if s := &g.segments[i]; !s.retired {
			cells += s.cells(&g.shape)
		}
	}
	return cells
}

// claimOwn returns the cell of a subscriber, ready to be bound, or none if it has to wait.
func (g *group) claimOwn(c *subscriberState, h nat.Holder) uint32 {
	own := g.ownCell(h.Inside)
	if own == none {
		return none
	}
	for x := c.held; g.refers(x); x = g.kept.At(x.place).older {
		l := g.kept.At(x.place)
		if l.cell == own && (g.count(own) == 1 || l.identity != "" && l.identity == h.Identity) {
			return g.unhold(x.place)
		}
	}
	if g.owners[own] != fresh || g.embargoed {
		return none
	}
	return own
}

// freedOwn makes a cell fresh, and notes the address that may be waiting for it.
func (g *group) freedOwn(cell uint32) {
	g.owners[cell] = fresh
	inside, ok := addressAt(g.config.Inside, uint64(cell-firstCell))
	if !ok {
		return
	}
	if c := g.subscribers.table.Place(inside); c != nil && c.waiter != none {
		g.ready = append(g.ready, addrrange.Number(inside))
	}
}

// readyAll notes all waiting holders: blocks of any of them may have come free.
func (g *group) readyAll() {
	g.ready = g.ready[:0]
	for w := g.waiting.front(); w != none; w = g.waiting.waiters[w].next {
		g.ready = append(g.ready, g.waiting.waiters[w].inside)
	}
}

// serveOwn gives those that are ready their blocks, as far as they are free.
func (g *group) serveOwn(give func(c *subscriberState, cell uint32, h nat.Holder)) {
	ready := g.ready
	g.ready = nil
	for _, inside := range ready {
		c := g.subscribers.at(inside)
		if c.waiter == none {
			continue
		}
		h := g.waiting.waiters[c.waiter].holder()
		if cell := g.claimOwn(c, h); cell != none {
			give(c, cell, h)
		}
	}
}

// Elsewhere returns the number of live bindings of a group in deterministic mode that do not
// have the block of the formula: they are from before a change.
func (e *Engine) Elsewhere(group string) (n int) {
	g := e.group(group)
	if g == nil || !g.config.Deterministic {
		return 0
	}
	for inside, c := range g.subscribers.all {
		if c.live() && c.cell != g.ownCell(addrrange.Address(inside)) {
			n++
		}
	}
	return n
}
