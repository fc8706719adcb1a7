package lsn

import (
	"fmt"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// Restore enters a binding that was stored, or found in the kernel, before the engine
// began, with all its blocks or not at all. It never gives a block to two owners.
// ErrConflict: one of the blocks, or the inside address of a live binding, has another one
// already. ErrNotInPool: one is no block of the group's present configuration. Restoring the
// same binding again is no error.
//
// A live binding removes its inside address from the wait queue.
func (e *Engine) Restore(b nat.Binding) error {
	g, err := e.offering(b.Group)
	if err != nil {
		return err
	}
	if err := g.restore(b); err != nil {
		return fmt.Errorf("restore %v:%s for %v in group %s: %w", b.Outside, b.Ports(), b.Inside, b.Group, err)
	}
	return nil
}

func (g *group) restore(b nat.Binding) error {
	if !b.Inside.Is4() || b.Inside.IsUnspecified() {
		return ErrNotInside
	}
	if !b.State.Live() && b.State != nat.Held {
		return ErrTransition
	}
	var room [4]uint32
	cells, ok := g.cellsOf(room[:0], b.Blocks)
	if !ok {
		return ErrNotInPool
	}
	for _, c := range cells {
		if owner := (nat.Binding{}); g.owner(c, &owner) {
			if owner.Blocks != b.Blocks || owner.Inside != b.Inside || owner.State != b.State || owner.Identity != b.Identity {
				return ErrConflict
			}
			return nil
		}
	}
	if !g.segmentOf(cells[0]).kept {
		return ErrNotInPool
	}
	subscriber := g.subscribers.at(addrrange.Number(b.Inside))
	if b.State.Live() && subscriber.live() {
		return ErrConflict
	}
	for _, c := range cells {
		g.claimCell(c)
	}
	g.adopt(subscriber, cells, b)
	return nil
}

// cellsOf appends the cells of exactly these blocks.
func (g *group) cellsOf(cells []uint32, blocks nat.Blocks) ([]uint32, bool) {
	for b := range blocks.All() {
		c, ok := g.cellOf(b)
		if !ok {
			return cells, false
		}
		cells = append(cells, c)
	}
	return cells, true
}

// cellOf returns the cell of exactly this block.
func (g *group) cellOf(b nat.Block) (uint32, bool) {
	for i := range g.segments {
		s := &g.segments[i]
		if c, ok := s.cellAt(&g.shape, b.Outside, b.First); ok {
			return c, s.block(&g.shape, c) == b
		}
	}
	return none, false
}

// claimCell takes an unused cell out of the free or the quarantined ones. They contain only
// cells that were given since the engine began.
func (g *group) claimCell(c uint32) {
	if g.ranked != nil {
		g.quarantined = slices.DeleteFunc(g.quarantined, func(x uint32) bool { return x == c })
		return // adopt takes it out of the free ones
	}
	if g.owners[c] == fresh {
		return
	}
	taken := func(x uint32) bool { return x == c }
	if slices.Contains(g.free.All(), c) {
		g.free.DeleteFunc(taken)
		g.segmentOf(c).idle--
	}
	g.quarantined = slices.DeleteFunc(g.quarantined, taken)
}

// adopt gives unused cells to the binding.
func (g *group) adopt(subscriber *subscriberState, cells []uint32, b nat.Binding) {
	l := lease{
		cell: cells[0], state: b.State, allocated: stampOf(b.AllocatedAt), released: stampOf(b.ReleasedAt),
	}
	if !b.GraceUntil.IsZero() || b.Receipt != nil {
		l.after = &teardownInfo{b.GraceUntil, b.Receipt}
	}
	l.setHolder(b.Holder)
	inside := addrrange.Number(b.Inside)
	g.assign(inside, b.Blocks, cells, stampOf(b.GrownAt))
	if b.State == nat.Held {
		g.hold(inside, l, b.HoldUntil)
		return
	}
	g.unwait(subscriber)
	subscriber.lease = l
	g.first.set(inside, stampOf(b.FirstAt))
	g.changed(l.cell)
	g.segmentOf(l.cell).used += len(cells)
}
