package lsn

import "time"

// transition moves a live lease to a state that its own leads to.
func (g *group) transition(i uint32, to State, now time.Time) {
	l := &g.leases[i]
	l.state = to
	switch to {
	case Active:
		l.released = 0
	case Draining:
		l.released = stampOf(now)
	case Cut:
		if l.released == 0 {
			l.released = stampOf(now)
		}
	case Held:
		s := g.segmentOf(l.cell)
		s.used--
		s.held++
		l.client.live = none
		g.hold(i, now.Add(g.config.Hold))
	}
}

// hold enters a lease that just became Held in the queue and in its client's chain.
func (g *group) hold(i uint32, until time.Time) {
	g.held++
	g.chain(i)
	l := &g.leases[i]
	l.until = stampOf(until)
	g.turns++
	l.turn = g.turns
	if g.holds.len() >= 2*g.held+1024 {
		g.holds.sweep(g.void)
	}
	g.holds.push(hold{until: until, lease: i, turn: l.turn})
}

// void reports whether the lease of a hold has moved on.
func (g *group) void(h hold) bool {
	l := &g.leases[h.lease]
	return l.state != Held || l.turn != h.turn
}

// chain makes a lease the newest held one of its inside address.
func (g *group) chain(i uint32) {
	l := &g.leases[i]
	c := l.client
	l.older, l.newer = c.held, none
	if c.held != none {
		g.leases[c.held].newer = i
	}
	c.held = i
}

func (g *group) unchain(i uint32) {
	l := &g.leases[i]
	if l.newer != none {
		g.leases[l.newer].older = l.older
	} else {
		l.client.held = l.older
	}
	if l.older != none {
		g.leases[l.older].newer = l.newer
	}
	l.older, l.newer = none, none
}

// endHolds frees the blocks whose hold is over and appends their last bindings.
func (g *group) endHolds(now time.Time, freed []Binding) []Binding {
	if g.embargoed && !now.Before(g.embargoUntil) {
		g.endQuarantine()
	}
	for h := g.nextHold(); h != nil && !now.Before(h.until); h = g.nextHold() {
		i := h.lease
		g.holds.pop()
		freed = append(freed, g.binding(i))
		g.free(i)
	}
	return freed
}

// nextHold returns the hold that ends first, or nil, and drops void ones before it.
func (g *group) nextHold() *hold {
	h := g.holds.front()
	for ; h != nil && g.void(*h); h = g.holds.front() {
		g.holds.pop()
	}
	return h
}

// free ends a held lease; its block goes behind all other free ones.
func (g *group) free(i uint32) {
	g.unchain(i)
	g.held--
	c := g.leases[i].cell
	g.leases[i] = lease{older: g.spare}
	g.spare = i
	s := g.segmentOf(c)
	s.held--
	if s.retired {
		g.cells[c] = cell{}
		return
	}
	pushCell(g.cells, freeList, c, cellFree)
	s.idle++
}

// next returns when endHolds or serve has work.
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

// quarantine keeps all blocks that are free now from everybody for the group's hold.
func (g *group) quarantine(now time.Time) {
	until := now.Add(g.config.Hold)
	if !g.embargoed || until.After(g.embargoUntil) {
		g.embargoUntil = until
	}
	g.embargoed = true
	for c := g.cells[freeList].next; c != freeList; c = g.cells[freeList].next {
		unlinkCell(g.cells, c)
		pushCell(g.cells, quarantine, c, cellQuarantined)
		g.segmentOf(c).idle--
	}
}

// endQuarantine makes the quarantined blocks the first of the free ones again.
func (g *group) endQuarantine() {
	g.embargoed, g.embargoUntil = false, time.Time{}
	for c := g.cells[quarantine].next; c != quarantine; c = g.cells[c].next {
		g.cells[c].kind = cellFree
		g.segmentOf(c).idle++
	}
	spliceFront(g.cells, quarantine, freeList)
}
