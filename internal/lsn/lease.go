package lsn

import (
	"math"
	"slices"
	"time"

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

// enter moves a live lease to another live state, which must be a legal successor.
func (l *lease) enter(to nat.State, now time.Time) {
	l.state, l.after = to, nil
	switch {
	case to == nat.Active:
		l.released = 0
	case l.released == 0:
		l.released = stampOf(now)
	}
}

// describe fills b with the binding of the lease of an inside address. A Binding is too
// large to be copied from function to function.
func (g *group) describe(inside uint32, l *lease, b *nat.Binding) {
	b.Group = g.config.Name
	b.Blocks = g.blocksOf(l.cell)
	b.Inside = address(inside)
	b.Identity, b.UserName, b.AcctSessionID = l.identity, l.user, l.session
	b.State = l.state
	b.AllocatedAt, b.ReleasedAt, b.HoldUntil = l.allocated.time(), l.released.time(), time.Time{}
	b.GraceUntil, b.Receipt = time.Time{}, nil
	if l.after != nil {
		b.GraceUntil, b.Receipt = l.after.grace, l.after.receipt
	}
}

// severalBlocks are the blocks of a lease that has more than one. Few leases have, so these
// are apart from them.
type severalBlocks struct {
	blocks  nat.Blocks
	further []uint32 // the cells of all but the first block
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
func (g *group) assign(inside uint32, blocks nat.Blocks, cells []uint32) {
	for _, c := range cells {
		g.owners[c] = inside
	}
	if len(cells) == 1 {
		return
	}
	if g.several == nil {
		g.several = make(map[uint32]severalBlocks)
	}
	g.several[cells[0]] = severalBlocks{blocks, slices.Clone(cells[1:])}
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
