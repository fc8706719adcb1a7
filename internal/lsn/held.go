package lsn

import (
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// heldLease is a lease in its hold; the zero one is spare. Holds end mostly in the order in
// which they began, and their places are reused in that order. So the processor can
// prefetch them.
type heldLease struct {
	lease
	inside uint32
	turn   uint64 // number of its hold, unique in the group, from 1 on
	until  stamp  // as a stamp; the hold queue has the exact time

	// The next older held lease of the inside address. In a spare one, its place links the
	// next spare one.
	older heldRef
}

// heldPageBits makes a page of held leases 16 KiB. A slice would be copied dozens of times
// when a NAS with a million subscribers restarts: each time under the lock of the engine's
// owner, and with both copies in memory.
const heldPageBits = 7

// heldRef refers to a held lease while its hold lasts. Afterwards the place is spare, or
// has a later turn, so the end of a hold need not update its references.
type heldRef struct {
	turn  uint64
	place uint32
}

// refers reports whether x still names a held lease. Places are reused, so the turn must
// match; one older than that of the oldest running hold needs no look at the lease.
func (g *group) refers(x heldRef) bool {
	return x.turn != 0 && x.turn >= g.holds.oldest() && g.kept.At(x.place).turn == x.turn
}

// hold begins the hold of a lease that is no longer live.
func (g *group) hold(inside uint32, l lease, until time.Time) uint32 {
	l.state = nat.Held
	g.turns++
	x := heldRef{turn: g.turns, place: g.newHeld()}
	*g.kept.At(x.place) = heldLease{lease: l, inside: inside, turn: x.turn, until: stampOf(until)}
	g.chain(x)
	g.segmentOf(l.cell).held += g.count(l.cell)
	g.held++
	if g.holds.len() >= 2*g.held+1024 {
		g.holds.sweep(g.void)
	}
	g.holds.push(hold{until: until, heldRef: x})
	return x.place
}

// unhold ends the hold of a lease, and the lease, and returns its first cell.
func (g *group) unhold(i uint32) uint32 {
	g.unchain(i)
	c := g.kept.At(i).cell
	*g.kept.At(i) = heldLease{older: heldRef{place: g.spare}}
	g.spare = i
	g.segmentOf(c).held -= g.count(c)
	g.held--
	return c
}

// newHeld returns a spare held lease.
func (g *group) newHeld() uint32 {
	i := g.spare
	if i == none {
		return g.kept.Add()
	}
	g.spare = g.kept.At(i).older.place
	return i
}

// void reports whether a hold's lease is no longer in that hold.
func (g *group) void(h hold) bool { return g.kept.At(h.place).turn != h.turn }

// chain makes a lease the newest held one of its inside address.
func (g *group) chain(x heldRef) {
	l := g.kept.At(x.place)
	c := g.subscribers.at(l.inside)
	if g.refers(c.held) {
		l.older = c.held
	}
	c.held = x
}

// unchain removes a lease from the held ones of its inside address. Usually it is the last
// of them; then the reference to it stays and is void.
func (g *group) unchain(i uint32) {
	l := g.kept.At(i)
	if !g.refers(l.older) {
		return
	}
	x := &g.subscribers.at(l.inside).held
	for x.place != i {
		x = &g.kept.At(x.place).older
	}
	*x = l.older
}

// describeHeld is describe for a held lease.
func (g *group) describeHeld(i uint32, b *nat.Binding) {
	l := g.kept.At(i)
	g.describe(l.inside, &l.lease, b)
	b.HoldUntil = l.until.time()
}
