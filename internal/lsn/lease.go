package lsn

import (
	"container/heap"
	"math"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/fifo"
	"github.com/sessiond/sessiond/internal/nat"
)

// lease is a block in use; the zero one has no block.
type lease struct {
	cell                    uint32 // of its first block; group.several has the further ones
	state                   nat.State
	identity, user, session string
	allocated, released     stamp
	after                   *teardownInfo // nil for none
}

// teardownInfo is data about a lease whose record ended, which few leases have
// at a time: see Binding.GraceUntil and Binding.Receipt. It is replaced, never
// changed.
type teardownInfo struct {
	grace   time.Time
	receipt *nat.Receipt
}

// stamp is a time in a third of the memory: nanoseconds since 1970; 0 is the zero time. It
// is cut off before the year 1678 and after 2261.
type stamp int64

// The seconds that a stamp can hold, with any nanoseconds.
const (
	firstSecond = math.MinInt64/int64(time.Second) + 1
	lastSecond  = math.MaxInt64/int64(time.Second) - 1
)

func stampOf(t time.Time) stamp {
	switch seconds := t.Unix(); {
	case t.IsZero():
		return 0
	case seconds < firstSecond:
		return math.MinInt64
	case seconds > lastSecond:
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

func (l *lease) setHolder(h nat.Holder) {
	l.identity, l.user, l.session = h.Identity, h.UserName, h.AcctSessionID
}

// describe fills b with the binding of the lease of an inside address. A Binding is too
// large to be copied from function to function.
func (g *group) describe(inside uint32, l *lease, b *nat.Binding) {
	b.Group = g.config.Name
	b.Blocks, b.GrownAt = g.blocksOf(l.cell), g.grownAt(l.cell)
	b.Inside = addrrange.Address(inside)
	b.Identity, b.UserName, b.AcctSessionID = l.identity, l.user, l.session
	b.State = l.state
	b.FirstAt = time.Time{}
	if len(g.first) > 0 && l.state.Live() {
		b.FirstAt = g.first[inside].time()
	}
	b.AllocatedAt, b.ReleasedAt, b.HoldUntil = l.allocated.time(), l.released.time(), time.Time{}
	b.GraceUntil, b.Receipt = time.Time{}, nil
	if l.after != nil {
		b.GraceUntil, b.Receipt = l.after.grace, l.after.receipt
	}
}

// firstTimes has, by inside address, nat.Binding.FirstAt of the live leases that have one. Few
// have, so it is apart from them.
type firstTimes map[uint32]stamp

// set sets the time of an inside address; the zero stamp removes it.
func (f *firstTimes) set(inside uint32, at stamp) {
	if at == 0 {
		delete(*f, inside)
		return
	}
	if *f == nil {
		*f = firstTimes{}
	}
	(*f)[inside] = at
}

// Blocks of a lease.

// severalBlocks are the blocks of a lease that has more than one. Few leases have, so these
// are apart from them.
type severalBlocks struct {
	blocks  nat.Blocks
	further []uint32 // the cells of all but the first block
	since   stamp    // when it got the newest of them; that of an earlier one after a Shrink
}

// blocksOf returns the blocks of the lease with a first cell.
func (g *group) blocksOf(first uint32) nat.Blocks {
	if len(g.several) > 0 {
		if s, ok := g.several[first]; ok {
			return s.blocks
		}
	}
	return nat.Blocks{Block: g.segmentOf(first).block(&g.shape, first)}
}

// grownAt returns the time at which the lease with a first cell got its newest further block.
func (g *group) grownAt(first uint32) time.Time {
	if len(g.several) == 0 {
		return time.Time{}
	}
	return g.several[first].since.time()
}

// further returns the cells, except the first one, of the lease with a first cell.
func (g *group) further(first uint32) []uint32 {
	if len(g.several) == 0 {
		return nil
	}
	return g.several[first].further
}

// count returns the number of blocks of the lease with a first cell.
func (g *group) count(first uint32) int { return 1 + len(g.further(first)) }

// assign makes the inside address the owner of blocks, whose cells are given in their order.
func (g *group) assign(inside uint32, blocks nat.Blocks, cells []uint32, since stamp) {
	for _, c := range cells {
		g.owners[c] = inside
	}
	if len(cells) > 1 {
		g.setSeveral(cells[0], blocks, slices.Clone(cells[1:]), since)
	}
}

// setSeveral sets the blocks of the lease with a first cell, and the cells of the further
// ones.
func (g *group) setSeveral(first uint32, blocks nat.Blocks, further []uint32, since stamp) {
	if len(further) == 0 {
		delete(g.several, first)
		return
	}
	if g.several == nil {
		g.several = make(map[uint32]severalBlocks)
	}
	g.several[first] = severalBlocks{blocks, further, since}
}

// leases yields every lease of the group, live ones first.
func (g *group) leases(yield func(*lease) bool) {
	for _, c := range g.subscribers.all {
		if c.live() && !yield(&c.lease) {
			return
		}
	}
	for _, l := range g.kept.All() {
		if l.state != 0 && !yield(&l.lease) {
			return
		}
	}
}

// owner describes the binding that uses a cell, or returns false.
func (g *group) owner(cell uint32, b *nat.Binding) bool {
	inside := g.owners[cell]
	if inside == fresh {
		return false
	}
	c := g.subscribers.at(inside)
	if c.live() && g.has(c.cell, cell) {
		g.describe(inside, &c.lease, b)
		return true
	}
	for x := c.held; g.refers(x); x = g.kept.At(x.place).older {
		if g.has(g.kept.At(x.place).cell, cell) {
			g.describeHeld(x.place, b)
			return true
		}
	}
	return false
}

// has reports whether the lease with a first cell has a cell.
func (g *group) has(first, cell uint32) bool {
	return first == cell || slices.Contains(g.further(first), cell)
}

// Leases in their hold.

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

// hold begins the hold of a lease that is no longer live, and makes it the newest held one
// of its inside address.
func (g *group) hold(inside uint32, l lease, until time.Time) uint32 {
	i := g.spare
	if i == none {
		i = g.kept.Add()
	} else {
		g.spare = g.kept.At(i).older.place
	}
	l.state = nat.Held
	g.turns++
	x := heldRef{turn: g.turns, place: i}
	kept := heldLease{lease: l, inside: inside, turn: x.turn, until: stampOf(until)}
	c := g.subscribers.at(inside)
	if g.refers(c.held) {
		kept.older = c.held
	}
	c.held = x
	*g.kept.At(i) = kept
	g.segmentOf(l.cell).held += g.count(l.cell)
	g.held++
	g.changed(l.cell)
	if g.holds.len() >= 2*g.held+1024 {
		g.holds.sweep(g.void)
	}
	g.holds.push(hold{until: until, heldRef: x})
	return i
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

// void reports whether a hold's lease is no longer in that hold.
func (g *group) void(h hold) bool { return g.kept.At(h.place).turn != h.turn }

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

// The order of the ends of holds.

// hold is the end of one quarantine. It is void once its lease has another turn. A void
// hold stays in the queue until its time, because removing it earlier would cost more.
type hold struct {
	until time.Time
	heldRef
}

// before reports whether h ends before o; of equal ends the earlier begin is first.
func (h *hold) before(o *hold) bool {
	c := h.until.Compare(o.until)
	return c < 0 || c == 0 && h.turn < o.turn
}

// holdQueue orders holds by their end. Holds mostly begin in the order of their ends and
// then cost constant time. After a step of the clock, a change of the hold time, or a start
// from stored bindings they come in any order: those go to a heap.
type holdQueue struct {
	inOrder fifo.Queue[hold]
	late    holdHeap
}

func (q *holdQueue) len() int { return q.inOrder.Len() + len(q.late) }

func (q *holdQueue) push(h hold) {
	if all := q.inOrder.All(); len(all) > 0 && h.before(&all[len(all)-1]) {
		heap.Push(&q.late, h)
		return
	}
	q.inOrder.Push(h)
}

// front returns the hold that ends first, or nil.
func (q *holdQueue) front() *hold {
	switch {
	case q.len() == 0:
		return nil
	case q.lateFirst():
		return &q.late[0]
	}
	return q.inOrder.Front()
}

// oldest returns a lower bound of the turns in the queue.
func (q *holdQueue) oldest() uint64 {
	switch {
	case len(q.late) > 0:
		return 0
	case q.inOrder.Len() > 0:
		return q.inOrder.Front().turn
	}
	return math.MaxUint64
}

// pop removes the hold that ends first.
func (q *holdQueue) pop() {
	if q.lateFirst() {
		heap.Pop(&q.late)
		return
	}
	q.inOrder.Pop()
}

func (q *holdQueue) lateFirst() bool {
	return len(q.late) > 0 && (q.inOrder.Len() == 0 || q.late[0].before(q.inOrder.Front()))
}

// sweep drops the void holds.
func (q *holdQueue) sweep(void func(hold) bool) {
	q.inOrder.DeleteFunc(void)
	q.late = slices.DeleteFunc(q.late, void)
	heap.Init(&q.late)
}

// holdHeap is a heap by end (container/heap): the hold at index 0 ends first.
type holdHeap []hold

func (q holdHeap) Len() int           { return len(q) }
func (q holdHeap) Less(i, j int) bool { return q[i].before(&q[j]) }
func (q holdHeap) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *holdHeap) Push(h any)        { *q = append(*q, h.(hold)) }

func (q *holdHeap) Pop() any {
	n := len(*q) - 1
	h := (*q)[n]
	*q = (*q)[:n]
	return h
}
