package lsn

import (
	"time"

	"github.com/sessiond/sessiond/internal/fifo"
	"github.com/sessiond/sessiond/internal/nat"
)

// release makes the live lease of a subscriber a held one.
func (g *group) release(inside uint32, c *subscriberState, now time.Time) uint32 {
	g.segmentOf(c.cell).used -= g.count(c.cell)
	i := g.hold(inside, c.lease, now.Add(g.config.Hold))
	c.lease = lease{}
	return i
}

// endHolds frees the blocks whose hold is over and appends their last bindings.
func (g *group) endHolds(now time.Time, freed []nat.Binding) []nat.Binding {
	if g.embargoed && !now.Before(g.embargoUntil) {
		g.endQuarantine()
	}
	for h := g.nextHold(); h != nil && !now.Before(h.until); h = g.nextHold() {
		i := h.place
		g.holds.pop()
		freed = append(freed, nat.Binding{})
		g.describeHeld(i, &freed[len(freed)-1])
		g.end(i)
	}
	return freed
}

// nextHold returns the hold that ends first, or nil, and removes void ones before it.
func (g *group) nextHold() *hold {
	h := g.holds.front()
	for ; h != nil && g.void(*h); h = g.holds.front() {
		g.holds.pop()
	}
	return h
}

// end ends a held lease; its blocks go behind all other free ones.
func (g *group) end(i uint32) {
	c := g.unhold(i)
	s := g.segmentOf(c)
	further := g.further(c)
	if !s.retired {
		g.free.Push(c)
		for _, x := range further {
			g.free.Push(x)
		}
		s.idle += 1 + len(further)
	}
	if further != nil {
		delete(g.several, c)
	}
}

// next returns the time at which endHolds or serve has work.
func (g *group) next() (time.Time, bool) {
	if g.waiting.len > 0 && g.hasFree() {
		return time.Time{}, true
	}
	switch h := g.nextHold(); {
	case h != nil && (!g.embargoed || h.until.Before(g.embargoUntil)):
		return h.until, true
	case g.embargoed:
		return g.embargoUntil, true
	}
	return time.Time{}, false
}

// quarantine holds all blocks that are free now for the group's hold.
func (g *group) quarantine(now time.Time) {
	until := now.Add(g.config.Hold)
	if !g.embargoed || until.After(g.embargoUntil) {
		g.embargoUntil = until
	}
	g.embargoed = true
	for g.free.Len() > 0 {
		c := g.free.Pop()
		g.quarantined = append(g.quarantined, c)
		g.segmentOf(c).idle--
	}
}

// endQuarantine makes the quarantined blocks the first of the free ones again.
func (g *group) endQuarantine() {
	g.embargoed, g.embargoUntil = false, time.Time{}
	for _, c := range g.quarantined {
		g.segmentOf(c).idle++
	}
	g.free = fifo.From(append(g.quarantined, g.free.All()...))
	g.quarantined = nil
}
