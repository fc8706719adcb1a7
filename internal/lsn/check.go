package lsn

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// Check verifies every invariant of the engine and returns an error for each broken one:
// one owner per block (I1), no free block that is leased or in a hold (I5), consistent
// counts, queues and indexes. It walks everything; it is for tests and diagnosis.
func (e *Engine) Check() error {
	var c checker
	for i, g := range e.groups {
		if i > 0 && e.groups[i-1].config.Name >= g.config.Name {
			c.fail("groups %s and %s are out of order", e.groups[i-1].config.Name, g.config.Name)
		}
		c.group = g
		c.cells()
		c.segments()
		c.spare()
		c.holds()
		c.subscribers()
		c.line()
		c.own()
	}
	c.routes(e)
	return errors.Join(c.errs...)
}

// checker gathers the errors of one group after the other.
type checker struct {
	group *group
	uses  []cellUse // by cell of the group
	errs  []error

	several int // leases with several blocks
	first   int // live leases whose session had another block before
}

// cellUse is the present use of a cell in its group.
type cellUse uint8

const (
	unused cellUse = iota // fresh, or of a retired segment and without an owner
	isFree
	isQuarantined
	isLive
	isHeld
)

func (c *checker) fail(format string, args ...any) {
	if c.group != nil {
		format = "group " + c.group.config.Name + ": " + format
	}
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// cells finds the use of every cell, and checks that it has only one.
func (c *checker) cells() {
	g := c.group
	c.uses = make([]cellUse, len(g.owners))
	c.several, c.first = 0, 0
	free := 0
	for cell := range g.freeCells {
		free++
		c.use(cell, isFree)
	}
	if r := g.ranked; r != nil && (free != r.len || g.free.Len() > 0) {
		c.fail("%d ranked cells, counted %d, and %d others", free, r.len, g.free.Len())
	}
	for _, cell := range g.quarantined {
		c.use(cell, isQuarantined)
	}
	for inside, x := range g.subscribers.all {
		if x.live() {
			c.lease(&x.lease, inside, isLive)
		}
	}
	for _, l := range g.kept.All() {
		if l.state != 0 {
			c.lease(&l.lease, l.inside, isHeld)
		}
	}
	if c.several != len(g.several) {
		c.fail("%d leases have several blocks, %d are known", c.several, len(g.several))
	}
	if c.first != len(g.first) {
		c.fail("sessions of %d live leases had another block before, %d are known", c.first, len(g.first))
	}
	if len(g.quarantined) > 0 && !g.embargoed {
		c.fail("cells are quarantined and no embargo is on")
	}
}

// use records the use of a cell that was given before.
func (c *checker) use(cell uint32, use cellUse) {
	if c.uses[cell] != unused {
		c.fail("cell %d has uses %d and %d", cell, c.uses[cell], use)
	}
	if c.group.owners[cell] == fresh && (c.group.ranked == nil || use == isLive || use == isHeld) {
		c.fail("cell %d has use %d and is fresh", cell, use)
	}
	c.uses[cell] = use
}

// lease checks a lease, and records the use of its cells.
func (c *checker) lease(l *lease, inside uint32, use cellUse) {
	c.use(l.cell, use)
	if l.state.Live() != (use == isLive) {
		c.fail("lease of %v has use %d and state %v", addrrange.Address(inside), use, l.state)
	}
	if _, later := c.group.first[inside]; later && use == isLive {
		c.first++
	}
	further := c.group.further(l.cell)
	for _, x := range further {
		c.use(x, use)
	}
	if len(further) > 0 {
		c.several++
	}
	cells, _ := c.group.cellsOf(nil, c.group.blocksOf(l.cell))
	if !slices.Equal(cells, append([]uint32{l.cell}, further...)) {
		c.fail("lease of %v with cell %d has blocks of the cells %v", addrrange.Address(inside), l.cell, cells)
	}
	for _, x := range cells {
		if owner := c.group.owners[x]; owner != inside {
			c.fail("cell %d of %v belongs to %v", x, addrrange.Address(inside), addrrange.Address(owner))
		}
	}
}

// spare checks that every held lease is in use or spare.
func (c *checker) spare() {
	g := c.group
	n := g.kept.Len() - g.held
	for i := g.spare; i != none && n >= 0; i = g.kept.At(i).older.place {
		n--
		if g.kept.At(i).state != 0 {
			c.fail("spare held lease %d has state %v", i, g.kept.At(i).state)
		}
	}
	if n != 0 {
		c.fail("%d held leases are neither used nor spare", n)
	}
}

// segments checks every cell's use against its segment's counts.
func (c *checker) segments() {
	g, base := c.group, uint32(firstCell)
	for i := range g.segments {
		s := &g.segments[i]
		if s.base != base {
			c.fail("segment %v begins at cell %d, not %d", s.prefix, s.base, base)
		}
		base += s.cells(&g.shape)
		c.counts(s)
		c.ranks(s)
		c.order(s)
	}
	if int(base) != len(g.owners) {
		c.fail("%d cells, segments have %d", len(g.owners), base)
	}
}

func (c *checker) counts(s *poolPrefix) {
	g := c.group
	var used, held, idle int
	for i := s.base; i < s.base+s.cells(&g.shape); i++ {
		switch use := c.uses[i]; {
		case use == isHeld:
			held++
		case use == isLive:
			used++
		case use != unused && s.retired:
			c.fail("cell %d of retired segment %v is free", i, s.prefix)
		case use == isFree:
			idle++
		case use == unused && !s.retired && g.owners[i] != fresh:
			c.fail("cell %d of segment %v was given and is nowhere", i, s.prefix)
		}
	}
	if used != s.used || held != s.held || idle != s.idle {
		c.fail("segment %v has %d used, %d held, %d idle; counted %d, %d, %d",
			s.prefix, used, held, idle, s.used, s.held, s.idle)
	}
}

// ranks checks that every ranked cell is in the list of its rank.
func (c *checker) ranks(s *poolPrefix) {
	g := c.group
	if g.ranked == nil {
		return
	}
	for i := s.base; i < s.base+s.cells(&g.shape); i++ {
		if in := g.ranked.links[i].in; in != 0 && int(in) != 1+g.ranked.rank(s, i) {
			c.fail("cell %d is listed with rank %d, has %d", i, in-1, g.ranked.rank(s, i))
		}
	}
}

// order checks that no fresh cell was skipped, and so lost.
func (c *checker) order(s *poolPrefix) {
	g := c.group
	for n := uint32(0); n < s.fresh; n++ {
		if i := g.cellInOrder(s, n); g.owners[i] == fresh && c.uses[i] == unused {
			c.fail("fresh cell %d of segment %v is lost", i, s.prefix)
		}
	}
	if !s.retired && s.fresh < min(g.level, g.shape.count)*s.size {
		c.fail("segment %v gave %d cells, level is %d", s.prefix, s.fresh, g.level)
	}
}

// holds checks the queue's order, and that every held lease is in it once.
func (c *checker) holds() {
	g, valid := c.group, 0
	inOrder, late := g.holds.inOrder.All(), g.holds.late
	for i := range inOrder {
		if i > 0 && inOrder[i].before(&inOrder[i-1]) {
			c.fail("hold %d ends before the one ahead of it", i)
		}
	}
	for i := range late {
		if i > 0 && late[i].before(&late[(i-1)/2]) {
			c.fail("late hold %d ends before the one above it", i)
		}
	}
	for _, h := range slices.Concat(inOrder, late) {
		if g.void(h) {
			continue
		}
		valid++
		if g.kept.At(h.place).until != stampOf(h.until) {
			c.fail("hold of lease %d ends at %v, not %v", h.place, h.until, g.kept.At(h.place).until.time())
		}
	}
	if valid != g.held {
		c.fail("%d holds for %d held leases", valid, g.held)
	}
}

// subscribers checks the index by inside address.
func (c *checker) subscribers() {
	g, held := c.group, 0
	for inside, x := range g.subscribers.all {
		if x.live() && x.waiter != none {
			c.fail("%v is live and waits", addrrange.Address(inside))
		}
		if x.waiter != none && g.waiting.waiters[x.waiter].inside != inside {
			c.fail("place %d is not that of %v", x.waiter, addrrange.Address(inside))
		}
		held += c.chain(inside, x.held)
	}
	if held != g.held {
		c.fail("%d held leases are chained, counted %d", held, g.held)
	}
}

// chain checks the held leases of one inside address and counts them.
func (c *checker) chain(inside uint32, first heldRef) int {
	g, n := c.group, 0
	for x := first; g.refers(x) && n <= g.held; x = g.kept.At(x.place).older {
		if l := g.kept.At(x.place); l.inside != inside || l.older.turn >= x.turn {
			c.fail("lease %d is badly chained at %v", x.place, addrrange.Address(inside))
		}
		n++
	}
	return n
}

// line checks the queue of waiting holders.
func (c *checker) line() {
	g, n := c.group, 0
	for w := g.waiting.front(); w != none && n <= g.waiting.len; w = g.waiting.waiters[w].next {
		n++
		if inside := addrrange.Address(g.waiting.waiters[w].inside); g.subscribers.at(addrrange.Number(inside)).waiter != w {
			c.fail("place %d of %v is not indexed", w, inside)
		}
	}
	if n != g.waiting.len {
		c.fail("%d wait, counted %d", n, g.waiting.len)
	}
}

// own checks that in deterministic mode no block is in the order of free ones, and that nobody
// waits for a block that is free.
func (c *checker) own() {
	g := c.group
	if !g.config.Deterministic {
		return
	}
	if g.free.Len()+len(g.quarantined) > 0 {
		c.fail("%d cells are in an order in deterministic mode", g.free.Len()+len(g.quarantined))
	}
	for w := g.waiting.front(); w != none; w = g.waiting.waiters[w].next {
		inside := g.waiting.waiters[w].inside
		own := g.ownCell(addrrange.Address(inside))
		if own != none && g.owners[own] == fresh && !g.embargoed && !slices.Contains(g.ready, inside) {
			c.fail("%v waits for cell %d, which is free", addrrange.Address(inside), own)
		}
	}
}

// routes checks that the segments of all groups are found and disjoint.
func (c *checker) routes(e *Engine) {
	c.group = nil
	var segments []*poolPrefix
	for _, g := range e.groups {
		for i := range g.segments {
			s := &g.segments[i]
			if r, _ := e.routes.Lookup(s.prefix.Addr()); r.segment != s || r.group != g {
				c.fail("segment %v of group %s is not found", s.prefix, g.config.Name)
			}
			segments = append(segments, s)
		}
	}
	if len(segments) != e.routes.Len() {
		c.fail("%d routes to %d segments", e.routes.Len(), len(segments))
	}
	slices.SortFunc(segments, func(a, b *poolPrefix) int { return cmp.Compare(a.low, b.low) })
	for i := 1; i < len(segments); i++ {
		if a, b := segments[i-1], segments[i]; a.prefix.Overlaps(b.prefix) {
			c.fail("segments %v and %v overlap", a.prefix, b.prefix)
		}
	}
}
