package lsn

import (
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// heldLease is a lease whose block is kept from others; the zero one is spare.
// Holds end mostly in the order in which they began and their places are used
// again in that order: a walk through memory that the processor foresees.
type heldLease struct {
	lease
	inside uint32
	turn   uint64 // number of its hold, unique in the group, from 1 on
	until  stamp  // the hold queue has the time that counts

	// The next older held lease of the inside address. The spare ones are
	// linked by its place.
	older heldRef
}

// heldPageBits makes a page of held leases 16 KiB. In a slice they would be copied dozens
// of times where a NAS with a million subscribers restarts, each time under the engine's
// owner's lock and with both copies in memory.
const heldPageBits = 7

// heldRef refers to a held lease, for as long as this is held: then its place
// is spare, or of a later turn. So nobody has to be told when a hold ends.
type heldRef struct {
	turn  uint64
	place uint32
}

// refers reports whether what x refers to is still held. Most references are to
// leases that ended long ago, which the turn tells without a look at them.
func (g *group) refers(x heldRef) bool {
	return x.turn != 0 && x.turn >= g.holds.oldest() && g.kept.At(x.place).turn == x.turn
}

// hold keeps the block of a lease, which is no longer live, from others.
func (g *group) hold(inside uint32, l lease, until time.Time) uint32 {
	l.state = nat.Held
	g.turns++
	x := heldRef{turn: g.turns, place: g.newHeld()}
	*g.kept.At(x.place) = heldLease{lease: l, inside: inside, turn: x.turn, until: stampOf(until)}
	g.chain(x)
	g.segmentOf(l.cell).held++
	g.held++
	if g.holds.len() >= 2*g.held+1024 {
		g.holds.sweep(g.void)
	}
	g.holds.push(hold{until: until, heldRef: x})
	return x.place
}

// unhold ends the hold of a lease, and the lease, and returns its cell.
func (g *group) unhold(i uint32) uint32 {
	g.unchain(i)
	c := g.kept.At(i).cell
	*g.kept.At(i) = heldLease{older: heldRef{place: g.spare}}
	g.spare = i
	g.segmentOf(c).held--
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

// void reports whether the lease of a hold has moved on.
func (g *group) void(h hold) bool { return g.kept.At(h.place).turn != h.turn }

// chain makes a lease the newest held one of its inside address.
func (g *group) chain(x heldRef) {
	l := g.kept.At(x.place)
	c := g.clients.at(l.inside)
	if g.refers(c.held) {
		l.older = c.held
	}
	c.held = x
}

// unchain takes a lease out of the held ones of its inside address. Where it is
// the last of them, as mostly, the reference to it is left to become void.
func (g *group) unchain(i uint32) {
	l := g.kept.At(i)
	if !g.refers(l.older) {
		return
	}
	x := &g.clients.at(l.inside).held
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
