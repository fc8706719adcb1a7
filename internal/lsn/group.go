package lsn

import (
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/arena"
	"github.com/sessiond/sessiond/internal/fifo"
	"github.com/sessiond/sessiond/internal/nat"
)

// maxReclaim is the number of an inside address's newest held bindings that are searched
// for the subscriber's own. It keeps Allocate's cost constant where an address changes
// hands quickly.
const maxReclaim = 16

// group is the state of one LSN group.
type group struct {
	config  GroupConfig
	retired bool // no longer configured; kept while it has bindings
	shape   blockLayout

	segments []poolPrefix             // in the order of their cells
	several  map[uint32]severalBlocks // of leases with several blocks, by their first cells
	first    firstTimes
	owners   []uint32           // last inside address of every cell, or fresh
	free     fifo.Queue[uint32] // cells that were given before and are free, longest free first
	ranked   *rankedCells       // in place of free where bindings may grow, else nil

	ready []uint32 // in deterministic mode: waiting inside addresses whose blocks may be free

	// The segment and the block number to be given for the first time next.
	turn, level uint32

	// During an embargo no subscriber gets a fresh or quarantined cell.
	embargoed    bool
	embargoUntil time.Time
	quarantined  []uint32 // the former content of free

	subscribers *subscriberIndex // with the live leases
	kept        arena.Arena[heldLease]
	spare       uint32
	held        int // of kept, those that are not spare
	holds       holdQueue
	turns       uint64 // holds so far
	waiting     waitQueue
}

// covers reports whether the address is in an inside prefix of the group.
func (g *group) covers(inside netip.Addr) bool {
	if inside.IsUnspecified() { // see fresh
		return false
	}
	for _, p := range g.config.Inside {
		if p.Contains(inside) {
			return true
		}
	}
	return false
}

// Blocks for subscribers.

func (g *group) allocate(h nat.Holder, now time.Time) (*lease, error) {
	c := g.subscribers.at(addrrange.Number(h.Inside))
	if c.live() {
		return nil, fmt.Errorf("allocate for %v in group %s: %w", h.Inside, g.config.Name, ErrBusy)
	}
	if free := g.reclaim(c, h); free != none {
		g.unwait(c)
		return g.bind(c, free, h, now), nil
	}
	if c.waiter != none {
		g.waiting.update(c.waiter, h)
		return nil, ErrExhausted
	}
	if g.waiting.len == 0 && !g.config.Deterministic {
		if free := g.nextFree(); free != none {
			return g.bind(c, free, h, now), nil
		}
	}
	c.waiter = g.waiting.push(h)
	return nil, ErrExhausted
}

// reclaim returns the cell of a subscriber that waits for nobody: in deterministic mode its own,
// else that of its last binding; or none.
func (g *group) reclaim(c *subscriberState, h nat.Holder) uint32 {
	if g.config.Deterministic {
		return g.claimOwn(c, h)
	}
	if own := g.ownHeld(c, h.Identity); own != none {
		return g.unhold(own)
	}
	return none
}

// bind gives a free cell, or the cells of a former lease by the first one, to h, whose
// subscriber is c.
func (g *group) bind(c *subscriberState, free uint32, h nat.Holder, now time.Time) *lease {
	c.lease = lease{cell: free, state: nat.Active, allocated: stampOf(now)}
	c.setHolder(h)
	g.owners[free] = addrrange.Number(h.Inside)
	g.changed(free)
	g.segmentOf(free).used += g.count(free)
	return &c.lease
}

// ownHeld returns the subscriber's own newest held lease, or none.
func (g *group) ownHeld(c *subscriberState, identity string) uint32 {
	if identity == "" {
		return none
	}
	x := c.held
	for n := 0; n < maxReclaim && g.refers(x); n++ {
		l := g.kept.At(x.place)
		if l.identity == identity && !g.segmentOf(l.cell).retired {
			return x.place
		}
		x = l.older
	}
	return none
}

// nextFree removes the next block from the free ones and returns it, or none. A ranked one
// stays there until its caller gives it.
func (g *group) nextFree() uint32 {
	if g.ranked != nil {
		return g.ranked.next()
	}
	if !g.embargoed {
		if c := g.nextFresh(); c != none {
			return c
		}
	}
	if g.free.Len() == 0 {
		return none
	}
	c := g.free.Pop()
	g.segmentOf(c).idle--
	return c
}

// nextFresh takes the next block that was never given. The segments take turns, each with
// one block of each of its addresses.
func (g *group) nextFresh() uint32 {
	for ; g.level < g.shape.count; g.level++ {
		for ; g.turn < uint32(len(g.segments)); g.turn++ {
			if c := g.freshIn(&g.segments[g.turn]); c != none {
				return c
			}
		}
		g.turn = 0
	}
	return none
}

// freshIn returns the segment's next fresh cell up to the group's level.
func (g *group) freshIn(s *poolPrefix) uint32 {
	if s.retired {
		return none
	}
	for s.fresh < (g.level+1)*s.size {
		c := g.cellInOrder(s, s.fresh)
		s.fresh++
		if g.owners[c] == fresh && (g.ranked == nil || !g.ranked.has(c)) {
			return c
		}
	}
	return none
}

// hasFree reports whether serve may find a block.
func (g *group) hasFree() bool {
	if g.config.Deterministic {
		return len(g.ready) > 0
	}
	for i := range g.segments {
		if _, free := g.heldAndFree(&g.segments[i]); free > 0 {
			return true
		}
	}
	return false
}

// Subscribers that wait.

// forget removes an inside address from the wait queue.
func (g *group) forget(inside netip.Addr) bool {
	c := g.subscribers.table.Place(inside)
	if c == nil || c.waiter == none {
		return false
	}
	g.unwait(c)
	return true
}

func (g *group) unwait(c *subscriberState) {
	if c.waiter != none {
		g.waiting.remove(c.waiter)
		c.waiter = none
	}
}

// serve gives the free blocks to waiting holders, first come, first served; in deterministic
// mode to each its own.
func (g *group) serve(now time.Time, served []nat.Binding) []nat.Binding {
	give := func(c *subscriberState, free uint32, h nat.Holder) {
		g.unwait(c)
		g.bind(c, free, h, now)
		served = append(served, nat.Binding{})
		g.describe(addrrange.Number(h.Inside), &c.lease, &served[len(served)-1])
	}
	if g.config.Deterministic {
		g.serveOwn(give)
		return served
	}
	for g.waiting.len > 0 {
		free := g.nextFree()
		if free == none {
			break
		}
		w := g.waiting.front()
		h := g.waiting.waiters[w].holder()
		give(g.subscribers.at(addrrange.Number(h.Inside)), free, h)
	}
	return served
}

// Ends of holds, and the quarantine of all free blocks.

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
	further := g.further(c)
	if further != nil {
		delete(g.several, c)
	}
	if g.segmentOf(c).retired {
		return
	}
	g.freed(c)
	for _, x := range further {
		g.freed(x)
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
	for c := range g.freeCells {
		g.quarantined = append(g.quarantined, c)
		g.segmentOf(c).idle--
		if g.ranked != nil {
			g.ranked.remove(c)
		}
	}
	g.free = fifo.Queue[uint32]{}
}

// endQuarantine makes the quarantined blocks the first of the free ones again.
func (g *group) endQuarantine() {
	g.embargoed, g.embargoUntil = false, time.Time{}
	defer func() { g.quarantined = nil }()
	if g.ranked != nil {
		g.ranked.restart()
		return
	}
	for _, c := range g.quarantined {
		g.segmentOf(c).idle++
	}
	g.free = fifo.From(append(g.quarantined, g.free.All()...))
	if g.config.Deterministic {
		g.readyAll()
	}
}

// Subscribers by inside address.

// subscriberState is a group's state of one inside address. An address has a
// live lease or waits, never both; it may have held leases besides.
//
// The live lease is embedded, not referred to, so that one memory access reads both: in a
// large pool, such accesses are the cost of each step in a binding's life.
type subscriberState struct {
	lease
	held   heldRef // newest of its held leases, which are chained by heldLease.older
	waiter uint32  // its index in the wait queue
}

// live reports whether the subscriber has a live lease.
func (c *subscriberState) live() bool { return c.state != 0 }

// subscriberIndex finds subscribers by inside address. It never removes one, so
// that subscribers that come and go cost no allocations. A subscriber keeps its
// place in memory until another address is added.
type subscriberIndex struct {
	table addrtable.Table[subscriberState]
}

// at returns the subscriber of an address, and adds it if needed.
func (x *subscriberIndex) at(inside uint32) *subscriberState {
	a := addrrange.Address(inside)
	if c := x.table.Place(a); c != nil {
		return c
	}
	x.table.Put(a, subscriberState{})
	return x.table.Place(a)
}

// all yields the subscribers, by address.
func (x *subscriberIndex) all(yield func(uint32, *subscriberState) bool) { x.from(0)(yield) }

// from yields the subscribers, by address, from one address on.
func (x *subscriberIndex) from(first uint32) iter.Seq2[uint32, *subscriberState] {
	return func(yield func(uint32, *subscriberState) bool) {
		for a := range x.table.From(addrrange.Address(first)) {
			if !yield(addrrange.Number(a), x.table.Place(a)) {
				return
			}
		}
	}
}

// The wait queue.

// waiter is one holder in the queue for a block.
type waiter struct {
	inside                  uint32
	identity, user, session string
	prev, next              uint32 // neighbours in the queue; next links the spare ones
}

func (w *waiter) holder() nat.Holder {
	return nat.Holder{Inside: addrrange.Address(w.inside), Identity: w.identity, UserName: w.user, AcctSessionID: w.session}
}

// waitQueue is a first-in first-out queue of the holders that wait for a block, with
// removal from anywhere. waiters[0] is the head of a circular list.
type waitQueue struct {
	waiters []waiter
	spare   uint32
	len     int
}

func newWaitQueue() waitQueue { return waitQueue{waiters: make([]waiter, 1)} }

// push puts h at the back and returns its index.
func (l *waitQueue) push(h nat.Holder) uint32 {
	w := l.spare
	if w == none {
		l.waiters = append(l.waiters, waiter{})
		w = uint32(len(l.waiters) - 1)
	} else {
		l.spare = l.waiters[w].next
	}
	last := l.waiters[0].prev
	l.waiters[w] = waiter{inside: addrrange.Number(h.Inside), prev: last}
	l.update(w, h)
	l.waiters[last].next, l.waiters[0].prev = w, w
	l.len++
	return w
}

// update replaces the holder's data at an index.
func (l *waitQueue) update(w uint32, h nat.Holder) {
	x := &l.waiters[w]
	x.identity, x.user, x.session = h.Identity, h.UserName, h.AcctSessionID
}

// remove takes an index out of the queue.
func (l *waitQueue) remove(w uint32) {
	x := l.waiters[w]
	l.waiters[x.prev].next = x.next
	l.waiters[x.next].prev = x.prev
	l.waiters[w] = waiter{next: l.spare}
	l.spare = w
	l.len--
}

// front returns the first index in the queue, or none.
func (l *waitQueue) front() uint32 { return l.waiters[0].next }
