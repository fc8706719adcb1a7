package lsn

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// Growth is a binding that got one block more, the newest.
type Growth struct {
	nat.Binding

	// Regained is the held binding that had the block, if that was the subscriber's own; the
	// zero Binding if the block was free.
	Regained nat.Binding
}

// InPlace reports whether the new block adjoins another one of the binding: their ports are
// one range then, and every mapping stays in the range of new sessions.
func (g *Growth) InPlace() bool { return g.Range() != g.Newest() }

// Grow gives an Active binding one block more, on its outside address: one that adjoins the
// range of ports (a nat.Blocks range) if such a block is free, else any. within are the
// ports that new sessions get at present, a range of the binding's. A block that the
// subscriber gave back, and that is still in its hold, counts as free.
//
// ErrMaxBlocks: it has as many as the group allows. ErrExhausted: no block of its address is
// free; or subscribers without any block wait, and come first; or the pool is in quarantine.
func (e *Engine) Grow(group string, inside netip.Addr, within nat.Block, now time.Time) (Growth, error) {
	g, c := e.subscriber(group, inside)
	refuse := func(err error) (Growth, error) {
		return Growth{}, fmt.Errorf("one block more for %v in group %s: %w", inside, group, err)
	}
	switch {
	case c == nil || !c.live():
		return refuse(ErrNoBinding)
	case c.state != nat.Active:
		return refuse(ErrTransition)
	case g.count(c.cell) >= g.config.MaxBlocks:
		return refuse(ErrMaxBlocks)
	case g.ranked == nil || g.retired || g.embargoed || g.waiting.len > 0 || g.segmentOf(c.cell).retired:
		return refuse(ErrExhausted)
	}
	cell := g.ranked.growthCell(c, within)
	if cell == none {
		return refuse(ErrExhausted)
	}
	var grown Growth
	if own := c.ownHeldCell(g, cell); own != none {
		g.describeHeld(own, &grown.Regained)
		g.unhold(own)
	}
	g.append(c, cell, now)
	g.describe(addrrange.Number(inside), &c.lease, &grown.Binding)
	return grown, nil
}

// append gives a cell to the lease of a subscriber as its newest.
func (g *group) append(c *subscriberState, cell uint32, now time.Time) {
	s := g.segmentOf(cell)
	blocks, ok := g.blocksOf(c.cell).With(s.block(&g.shape, cell))
	if !ok {
		panic(fmt.Sprintf("lsn: group %s: cell %d is not beside the blocks of %v", g.config.Name, cell, blocks))
	}
	g.setSeveral(c.cell, blocks, append(slices.Clip(g.further(c.cell)), cell), stampOf(now))
	g.owners[cell] = g.owners[c.cell]
	g.changed(c.cell)
	s.used++
}

// growthCell returns the cell with which the lease of a subscriber grows, or none: the buddy
// of its block, else the cell next to its range whose loss harms others least, else the
// best one of its address.
func (r *rankedCells) growthCell(c *subscriberState, within nat.Block) uint32 {
	s := r.g.segmentOf(c.cell)
	first, last := uint32(within.First)/r.g.shape.size, uint32(within.Last)/r.g.shape.size
	var best uint32
	bestRank := -1
	for _, n := range [...]uint32{first - 1, last + 1} {
		cell, ok := s.beside(&r.g.shape, c.cell, n)
		if !ok || !r.mayGrowInto(s, c, cell) {
			continue
		}
		rank := r.rank(s, cell)
		if first == last && n == first^1 {
			rank = ranks // its buddy
		}
		if rank > bestRank {
			best, bestRank = cell, rank
		}
	}
	if best != none {
		return best
	}
	bestRank = ranks
	for i := range r.g.shape.count {
		cell, _ := s.beside(&r.g.shape, c.cell, r.g.shape.first+i)
		if !r.mayGrowInto(s, c, cell) {
			continue
		}
		if rank := r.rank(s, cell); rank < bestRank {
			best, bestRank = cell, rank
		}
	}
	return best
}

// mayGrowInto reports whether a subscriber may get a cell as a further one.
func (r *rankedCells) mayGrowInto(s *poolPrefix, c *subscriberState, cell uint32) bool {
	return r.isFree(s, cell) || c.ownHeldCell(r.g, cell) != none
}

// ownHeldCell returns the held lease of exactly one cell that the subscriber itself gave
// back, or none.
func (c *subscriberState) ownHeldCell(g *group, cell uint32) uint32 {
	if c.identity == "" || g.owners[cell] != g.owners[c.cell] {
		return none
	}
	x := c.held
	for n := 0; n < maxReclaim && g.refers(x); n++ {
		l := g.kept.At(x.place)
		if l.cell == cell && l.identity == c.identity && g.count(cell) == 1 {
			return x.place
		}
		x = l.older
	}
	return none
}

// Shrink takes the newest of several blocks from an Active binding: nothing in the kernel
// uses it any more. It returns the binding without it, and the Held binding that the block
// becomes: others cannot get it until now plus the group's hold.
//
// ErrTransition: the binding has one block, or is not Active.
func (e *Engine) Shrink(group string, inside netip.Addr, now time.Time) (left, part nat.Binding, err error) {
	g, c := e.subscriber(group, inside)
	if c == nil || !c.live() {
		return left, part, fmt.Errorf("one block less for %v in group %s: %w", inside, group, ErrNoBinding)
	}
	further := g.further(c.cell)
	if len(further) == 0 || c.state != nat.Active {
		return left, part, fmt.Errorf("one block less for %v in group %s, is %v with %d: %w", inside, group, c.state, g.count(c.cell), ErrTransition)
	}
	cell := further[len(further)-1]
	since := g.several[c.cell].since
	g.setSeveral(c.cell, g.blocksOf(c.cell).Older(), further[:len(further)-1], since)
	g.segmentOf(cell).used--
	gone := c.lease
	gone.cell, gone.allocated, gone.released, gone.after = cell, since, stampOf(now), nil
	g.changed(c.cell)
	n := addrrange.Number(inside)
	g.describeHeld(g.hold(n, gone, now.Add(g.config.Hold)), &part)
	g.describe(n, &c.lease, &left)
	return left, part, nil
}

// Split returns the blocks of the group of which a range of ports consists, the lowest one
// first. It returns false if the range does not consist of whole blocks of one address.
func (e *Engine) Split(group string, r nat.Block) (blocks nat.Blocks, ok bool) {
	for at, more := r.First, r.First <= r.Last; more; {
		b, in := e.BlockAt(group, r.Outside, at)
		switch {
		case !in || b.First != at || b.Last > r.Last:
			return blocks, false
		case at == r.First:
			blocks.Block = b
		default:
			blocks, _ = blocks.With(b)
		}
		at, more, ok = b.Last+1, b.Last < r.Last, true
	}
	return blocks, ok
}

// BlockAt returns the block of the group that has an outside port, in use or not.
func (e *Engine) BlockAt(group string, outside netip.Addr, port nat.Port) (nat.Block, bool) {
	g := e.group(group)
	r, ok := e.routes.Lookup(outside)
	if !ok || r.group != g {
		return nat.Block{}, false
	}
	c, ok := r.segment.cellAt(&g.shape, outside, port)
	if !ok {
		return nat.Block{}, false
	}
	return r.segment.block(&g.shape, c), true
}

// Several returns the inside addresses of the group's live bindings with several blocks, in
// no order.
func (e *Engine) Several(group string) (list []netip.Addr) {
	g := e.group(group)
	if g == nil {
		return nil
	}
	for first := range g.several {
		inside := g.owners[first]
		if c := g.subscribers.at(inside); c.live() && c.cell == first {
			list = append(list, addrrange.Address(inside))
		}
	}
	return list
}
