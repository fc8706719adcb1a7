package lsn

import "fmt"

// Restore enters a binding that was stored, or found in the kernel, before the
// engine began. It never gives a block to two owners: ErrConflict says that the
// block, or the inside address of a live binding, has another one already, and
// changes nothing. Restoring the same binding again is no error. ErrNotInPool
// says that it is no block of the group as it is configured now.
//
// A live binding takes its inside address out of the line of those who wait.
func (e *Engine) Restore(b Binding) error {
	g, err := e.offering(b.Group)
	if err != nil {
		return err
	}
	if err := g.restore(b); err != nil {
		return fmt.Errorf("restore %v:%d-%d for %v in group %s: %w",
			b.Outside, b.First, b.Last, b.Inside, b.Group, err)
	}
	return nil
}

func (g *group) restore(b Binding) error {
	if !b.Inside.Is4() {
		return ErrNotInside
	}
	if !b.State.Live() && b.State != Held {
		return ErrTransition
	}
	c, ok := g.cellOf(b.Block)
	if !ok {
		return ErrNotInPool
	}
	if g.cells[c].kind == cellLeased {
		return g.sameOwner(g.cells[c].lease(), b)
	}
	if g.segmentOf(c).retired {
		return ErrNotInPool
	}
	client := g.clients.at(number(b.Inside))
	if b.State.Live() && client.live != none {
		return ErrConflict
	}
	g.takeCell(c)
	g.adopt(client, c, b)
	return nil
}

// cellOf returns the cell of exactly this block.
func (g *group) cellOf(b Block) (uint32, bool) {
	for i := range g.segments {
		s := &g.segments[i]
		if c, ok := s.cellAt(&g.shape, b.Outside, b.First); ok {
			return c, s.block(&g.shape, c) == b
		}
	}
	return none, false
}

// sameOwner reports nil when the lease is the binding that is to be restored.
func (g *group) sameOwner(i uint32, b Binding) error {
	if l := &g.leases[i]; l.inside != number(b.Inside) || l.state != b.State || l.identity != b.Identity {
		return ErrConflict
	}
	return nil
}

// takeCell takes a cell that has no lease out of wherever it is.
func (g *group) takeCell(c uint32) {
	switch g.cells[c].kind {
	case cellFree:
		g.segmentOf(c).idle--
		unlinkCell(g.cells, c)
	case cellQuarantined:
		unlinkCell(g.cells, c)
	}
}

func (g *group) adopt(client *client, c uint32, b Binding) {
	i := g.newLease(client, c, b.Holder, b.State)
	l := &g.leases[i]
	l.allocated, l.released = stampOf(b.AllocatedAt), stampOf(b.ReleasedAt)
	s := g.segmentOf(c)
	if b.State == Held {
		s.held++
		g.hold(i, b.HoldUntil)
		return
	}
	s.used++
	g.unwait(client)
	client.live = i
}
