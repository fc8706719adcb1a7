package lsn

import (
	"math"
	"time"
)

// lease is a binding as the group keeps it; the zero one is spare.
type lease struct {
	cell   uint32
	inside uint32
	client *client // what the group knows of inside
	state  State
	turn   uint64 // number of its hold, unique in the group

	// Neighbours among the held leases of one inside address. The spare
	// leases are linked by older.
	older, newer uint32

	identity, user, session string
	allocated, released     stamp
	until                   stamp // the hold queue has the time that counts
}

// stamp is a time in two thirds less memory, nanoseconds since 1970; 0 is the
// zero time. Beyond the years 1678 to 2261 it is cut off.
type stamp int64

func stampOf(t time.Time) stamp {
	switch year := t.UTC().Year(); {
	case t.IsZero():
		return 0
	case year < 1678:
		return math.MinInt64
	case year > 2261:
		return math.MaxInt64
	}
	return stamp(t.UnixNano())
}

func (s stamp) time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(s)).UTC()
}

func (l *lease) setHolder(h Holder) {
	l.identity, l.user, l.session = h.Identity, h.UserName, h.AcctSessionID
}

// newLease makes the cell belong to h, whom the group knows as c.
func (g *group) newLease(c *client, cell uint32, h Holder, state State) uint32 {
	i := g.spare
	if i == none {
		g.leases = append(g.leases, lease{})
		i = uint32(len(g.leases) - 1)
	} else {
		g.spare = g.leases[i].older
	}
	g.leases[i] = lease{cell: cell, inside: number(h.Inside), client: c, state: state}
	g.leases[i].setHolder(h)
	g.cells[cell] = leasedCell(i)
	return i
}

// binding returns the lease as the outside knows it.
func (g *group) binding(i uint32) Binding {
	l := &g.leases[i]
	return Binding{
		Group:       g.config.Name,
		Block:       g.segmentOf(l.cell).block(&g.shape, l.cell),
		Holder:      Holder{Inside: address(l.inside), Identity: l.identity, UserName: l.user, AcctSessionID: l.session},
		State:       l.state,
		AllocatedAt: l.allocated.time(),
		ReleasedAt:  l.released.time(),
		HoldUntil:   l.until.time(),
	}
}
