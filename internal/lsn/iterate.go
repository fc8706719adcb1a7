package lsn

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// BindingsFrom yields the bindings of the group, held ones included, address by address
// from an inside address on (zero value: from the first), until it has visited n addresses.
// It returns the next address, or the zero one at the end. Between two calls the engine may
// change.
func (e *Engine) BindingsFrom(group string, from netip.Addr, n int, yield func(nat.Binding)) netip.Addr {
	g := e.group(group)
	if g == nil {
		return netip.Addr{}
	}
	first := uint32(0)
	if from.Is4() {
		first = addrrange.Number(from)
	}
	var b nat.Binding
	for inside, c := range g.subscribers.from(first) {
		if n--; n < 0 {
			return addrrange.Address(inside)
		}
		if c.live() {
			g.describe(inside, &c.lease, &b)
			yield(b)
		}
		for x := c.held; g.refers(x); x = g.kept.At(x.place).older {
			g.describeHeld(x.place, &b)
			yield(b)
		}
	}
	return netip.Addr{}
}

// Held returns the number of the group's Held bindings.
func (e *Engine) Held(group string) int {
	if g := e.group(group); g != nil {
		return g.held
	}
	return 0
}

// HeldFew yields the held bindings of the group in no order, at the cost of these alone. If
// there are more than n, it yields none and returns false.
func (e *Engine) HeldFew(group string, n int, yield func(nat.Binding)) bool {
	g := e.group(group)
	if g == nil {
		return true
	}
	if g.held > n {
		return false
	}
	var b nat.Binding
	for h := range g.holds.all {
		if !g.void(h) {
			g.describeHeld(h.place, &b)
			yield(b)
		}
	}
	return true
}

// PendingFew yields the inside addresses that wait for a block of the group, in the order of
// their turn. If there are more than n, it yields none and returns false.
func (e *Engine) PendingFew(group string, n int, yield func(netip.Addr)) bool {
	g := e.group(group)
	if g == nil {
		return true
	}
	if g.waiting.len > n {
		return false
	}
	for w := g.waiting.front(); w != none; w = g.waiting.waiters[w].next {
		yield(addrrange.Address(g.waiting.waiters[w].inside))
	}
	return true
}

// all yields every hold, void ones included, in no order.
func (q *holdQueue) all(yield func(hold) bool) {
	for _, holds := range [][]hold{q.inOrder.All(), q.late} {
		for _, h := range holds {
			if !yield(h) {
				return
			}
		}
	}
}

// OutsideFew yields the bindings of the group whose outside address is in a prefix, in no
// order. If the group has more than n blocks there, it yields none and returns false.
func (e *Engine) OutsideFew(group string, outside netip.Prefix, n int, yield func(nat.Binding)) bool {
	g := e.group(group)
	if g == nil || !outside.Addr().Is4() {
		return true
	}
	type span struct{ first, end uint32 } // of cells
	var spans []span
	for i := range g.segments {
		s := &g.segments[i]
		if !s.prefix.Overlaps(outside) {
			continue
		}
		low, size := s.low, s.size
		if p := outside.Masked(); p.Bits() > s.prefix.Bits() {
			low, size = addrrange.Number(p.Addr()), 1<<(32-p.Bits())
		}
		cells := size * g.shape.count
		if n -= int(cells); n < 0 {
			return false
		}
		first := s.base + (low-s.low)*g.shape.count
		spans = append(spans, span{first, first + cells})
	}
	var b nat.Binding
	for _, s := range spans {
		for c := s.first; c < s.end; c++ {
			if !g.owner(c, &b) {
				continue
			}
			if first, _ := g.cellOf(b.Block); first == c { // once for all its blocks
				yield(b)
			}
		}
	}
	return true
}

// Usage counts the blocks of one outside prefix of a group.
type Usage struct {
	Group                   string
	Outside                 netip.Prefix
	Total, Used, Held, Free int  // Total = Used + Held + Free
	Draining                bool // gives no blocks
	Former                  bool // no longer configured: drains, and is listed while it has bindings
}

// Usage returns the counts of every outside prefix, by group name and then in
// configured order, draining ones last. A prefix that is no longer configured is
// listed while it has bindings. Of a draining prefix the blocks of bindings are
// the total.
func (e *Engine) Usage() []Usage {
	var all []Usage
	for _, g := range e.groups {
		for i := range g.segments {
			s := &g.segments[i]
			if !s.kept && s.used+s.held == 0 {
				continue
			}
			held, free := g.heldAndFree(s)
			all = append(all, Usage{
				Group: g.config.Name, Outside: s.prefix,
				Total: s.used + held + free, Used: s.used, Held: held, Free: free,
				Draining: s.retired, Former: !s.kept,
			})
		}
	}
	return all
}

// PoolOf returns the outside prefix, configured or draining, that has an outside address; false
// if none has.
func (e *Engine) PoolOf(outside netip.Addr) (netip.Prefix, bool) {
	r, ok := e.routes.Lookup(outside)
	if !ok {
		return netip.Prefix{}, false
	}
	return r.segment.prefix, true
}

// Quarantined returns the number of the group's blocks that Quarantine holds, and their
// end.
func (e *Engine) Quarantined(group string) (blocks int, until time.Time) {
	g := e.group(group)
	if g == nil || !g.embargoed {
		return 0, time.Time{}
	}
	for i := range g.segments {
		held, _ := g.heldAndFree(&g.segments[i])
		blocks += held - g.segments[i].held
	}
	return blocks, g.embargoUntil
}

// heldAndFree counts the segment's unused blocks: those in a hold or in quarantine, and the
// free ones.
func (g *group) heldAndFree(s *poolPrefix) (held, free int) {
	rest := int(s.cells(&g.shape)) - s.used - s.held
	switch {
	case s.retired:
		return s.held, 0
	case g.embargoed:
		return s.held + rest - s.idle, s.idle
	}
	return s.held, rest
}
