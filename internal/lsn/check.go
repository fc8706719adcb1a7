package lsn

import (
	"errors"
	"fmt"
	"slices"
)

// Check verifies every invariant of the engine and returns an error for each
// that is broken: one owner per block (I1), no free block that is leased or in
// a hold (I5), counts, queues and indexes that agree. It walks everything; it
// is for tests and diagnosis.
func (e *Engine) Check() error {
	var c checker
	for i, g := range e.groups {
		if i > 0 && e.groups[i-1].config.Name >= g.config.Name {
			c.fail("groups %s and %s are out of order", e.groups[i-1].config.Name, g.config.Name)
		}
		c.group = g
		c.leases()
		c.segments()
		c.list(freeList, cellFree)
		c.list(quarantine, cellQuarantined)
		c.holds()
		c.clients()
		c.line()
	}
	c.routes(e)
	return errors.Join(c.errs...)
}

// checker gathers what is wrong with one group after the other.
type checker struct {
	group *group
	errs  []error
}

func (c *checker) fail(format string, args ...any) {
	if c.group != nil {
		format = "group " + c.group.config.Name + ": " + format
	}
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// leases checks that every lease has a cell of its own, and is spare otherwise.
func (c *checker) leases() {
	g, spare, held := c.group, 0, 0
	for i := 1; i < len(g.leases); i++ {
		l := &g.leases[i]
		switch {
		case l.state == 0:
			spare++
			continue
		case l.state == Held:
			held++
		case !l.state.Live():
			c.fail("lease %d has state %v", i, l.state)
		case g.client(address(l.inside)).live != uint32(i):
			c.fail("lease %d is not the live one of %v", i, address(l.inside))
		}
		if l.client != g.clients.find(l.inside) {
			c.fail("lease %d has another client than %v", i, address(l.inside))
		}
		if k := &g.cells[l.cell]; k.kind != cellLeased || k.lease() != uint32(i) {
			c.fail("cell %d of lease %d has another owner", l.cell, i)
		}
	}
	for i := g.spare; i != none && spare >= 0; i = g.leases[i].older {
		spare--
	}
	if spare != 0 {
		c.fail("%d leases are neither used nor spare", spare)
	}
	if held != g.held {
		c.fail("%d held leases, counted %d", held, g.held)
	}
}

// segments checks every cell's kind against its segment's counts.
func (c *checker) segments() {
	g, base := c.group, uint32(listHeads)
	for i := range g.segments {
		s := &g.segments[i]
		if s.base != base {
			c.fail("segment %v begins at cell %d, not %d", s.prefix, s.base, base)
		}
		base += s.cells(&g.shape)
		c.counts(s)
		c.order(s)
	}
	if int(base) != len(g.cells) {
		c.fail("%d cells, segments have %d", len(g.cells), base)
	}
}

func (c *checker) counts(s *segment) {
	g := c.group
	var used, held, idle int
	for i := s.base; i < s.base+s.cells(&g.shape); i++ {
		switch k := &g.cells[i]; {
		case k.kind == cellLeased && (k.lease() == none || g.leases[k.lease()].cell != i):
			c.fail("cell %d belongs to lease %d, which has another", i, k.lease())
		case k.kind == cellLeased && g.leases[k.lease()].state == Held:
			held++
		case k.kind == cellLeased:
			used++
		case k.kind != cellFresh && s.retired:
			c.fail("cell %d of retired segment %v is free", i, s.prefix)
		case k.kind == cellFree:
			idle++
		}
	}
	if used != s.used || held != s.held || idle != s.idle {
		c.fail("segment %v has %d used, %d held, %d idle; counted %d, %d, %d",
			s.prefix, used, held, idle, s.used, s.held, s.idle)
	}
}

// order checks that no fresh cell was passed over, so that none is lost.
func (c *checker) order(s *segment) {
	g := c.group
	for n := uint32(0); n < s.fresh; n++ {
		if i := s.cellInOrder(&g.shape, n); g.cells[i].kind == cellFresh {
			c.fail("fresh cell %d of segment %v is lost", i, s.prefix)
		}
	}
	if !s.retired && s.fresh < min(g.level, g.shape.count)*s.size {
		c.fail("segment %v gave %d cells, level is %d", s.prefix, s.fresh, g.level)
	}
}

// list checks the links of a list of cells, and that it has all of its kind.
func (c *checker) list(head uint32, kind cellKind) {
	g, n := c.group, 0
	for i := g.cells[head].next; i != head; i = g.cells[i].next {
		if n++; n > len(g.cells) {
			c.fail("list %d runs in a circle", head)
			return
		}
		if k := &g.cells[i]; k.kind != kind || g.cells[k.next].prev != i || g.cells[k.prev].next != i {
			c.fail("cell %d is badly linked in list %d", i, head)
			return
		}
	}
	for i := listHeads; i < len(g.cells); i++ {
		if g.cells[i].kind == kind {
			n--
		}
	}
	if n != 0 {
		c.fail("list %d has %d cells too many", head, n)
	}
	if head == quarantine && !g.embargoed && g.cells[head].next != head {
		c.fail("cells are quarantined and no embargo is on")
	}
}

// holds checks the queue's order, and that every held lease is in it once.
func (c *checker) holds() {
	g, valid := c.group, 0
	fifo, late := g.holds.fifo[g.holds.head:], g.holds.late
	for i := range fifo {
		if i > 0 && fifo[i].before(&fifo[i-1]) {
			c.fail("hold %d ends before the one ahead of it", i)
		}
	}
	for i := range late {
		if i > 0 && late[i].before(&late[(i-1)/arity]) {
			c.fail("late hold %d ends before the one above it", i)
		}
	}
	for _, h := range slices.Concat(fifo, late) {
		if g.void(h) {
			continue
		}
		valid++
		if g.leases[h.lease].until != stampOf(h.until) {
			c.fail("hold of lease %d ends at %v, not %v", h.lease, h.until, g.leases[h.lease].until.time())
		}
	}
	if valid != g.held {
		c.fail("%d holds for %d held leases", valid, g.held)
	}
}

// clients checks the index by inside address.
func (c *checker) clients() {
	g, held := c.group, 0
	for n, page := range g.clients {
		for i, x := range page {
			inside := n*uint32(len(page)) + uint32(i)
			if x.live != none && (g.leases[x.live].inside != inside || !g.leases[x.live].state.Live()) {
				c.fail("lease %d is not a live one of %v", x.live, address(inside))
			}
			if x.live != none && x.waiter != none {
				c.fail("%v is live and waits", address(inside))
			}
			if x.waiter != none && g.waiting.waiters[x.waiter].inside != inside {
				c.fail("place %d is not that of %v", x.waiter, address(inside))
			}
			held += c.chain(inside, x.held)
		}
	}
	if held != g.held {
		c.fail("%d held leases are chained, counted %d", held, g.held)
	}
}

// chain checks the held leases of one inside address and counts them.
func (c *checker) chain(inside, first uint32) int {
	g, n, newer := c.group, 0, uint32(none)
	for i := first; i != none && n <= len(g.leases); i = g.leases[i].older {
		if l := &g.leases[i]; l.inside != inside || l.state != Held || l.newer != newer {
			c.fail("lease %d is badly chained at %v", i, address(inside))
		}
		newer = i
		n++
	}
	return n
}

// line checks those who wait.
func (c *checker) line() {
	g, n := c.group, 0
	for w := g.waiting.front(); w != none && n <= g.waiting.len; w = g.waiting.waiters[w].next {
		n++
		if inside := address(g.waiting.waiters[w].inside); g.client(inside).waiter != w {
			c.fail("place %d of %v is not indexed", w, inside)
		}
	}
	if n != g.waiting.len {
		c.fail("%d wait, counted %d", n, g.waiting.len)
	}
}

// routes checks that the segments of all groups are found and disjoint.
func (c *checker) routes(e *Engine) {
	c.group = nil
	segments := 0
	for _, g := range e.groups {
		segments += len(g.segments)
	}
	if segments != len(e.routes) {
		c.fail("%d routes to %d segments", len(e.routes), segments)
	}
	for i := 1; i < len(e.routes); i++ {
		a, b := e.routes[i-1].segment, e.routes[i].segment
		if a.prefix.Overlaps(b.prefix) || a.low >= b.low {
			c.fail("segments %v and %v overlap or are out of order", a.prefix, b.prefix)
		}
	}
}
