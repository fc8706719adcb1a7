package faults

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// differences compares a snapshot with the model. sessiond may still resolve the returned
// differences; forbidden returns those that may never exist.
func (w *world) differences(s *snapshot) []string {
	c := w.compare(s)
	c.records()
	c.bindings()
	c.pools()
	c.kernel()
	c.stored()
	c.sessions()
	c.briefs()
	c.secondPool()
	c.mapped()
	c.growths()
	c.fixedBlocks()
	c.limited()
	c.named()
	if !s.status.Ready {
		c.differ("sessiond is not ready: %s", s.status.Why)
	}
	if s.status.Suspect != "" {
		c.differ("the database is suspect: %s", s.status.Suspect)
	}
	return c.found
}

// besides compares the results of lookForeign.
func (w *world) besides(s *snapshot) []string {
	c := &comparison{world: w, s: s}
	prefixes := []netip.Prefix{briefOutside}
	for _, g := range groups {
		prefixes = append(prefixes, g.outside)
	}
	if w.second.state != poolAbsent {
		prefixes = append(prefixes, secondPool)
	}
	for _, prefix := range prefixes {
		if !strings.Contains(s.routes, "blackhole "+strings.TrimSuffix(prefix.String(), "/32")+" ") {
			c.differ("the blackhole route of %s is gone: %s", prefix, s.routes)
		}
	}
	if s.foreign != w.foreign {
		c.differ("the foreign table changed to %s (I8)", s.foreign)
	}
	return c.found
}

// forbidden returns the differences that no snapshot may have.
func (w *world) forbidden(s *snapshot) []string {
	c := &comparison{world: w, s: s}
	c.overlaps()
	return c.found
}

type comparison struct {
	*world
	s     *snapshot
	found []string

	atRest map[netip.Addr]*binding // the live bindings
}

func (w *world) compare(s *snapshot) *comparison {
	c := &comparison{world: w, s: s}
	c.atRest = c.live()
	return c
}

func (c *comparison) differ(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// records: Redis has a record for each online line, of its session, and no other. So no
// answered event was lost (I2), and no old event undid anything (I4).
func (c *comparison) records() {
	for _, l := range c.model.lines {
		r, ok := c.s.records[l.inside]
		switch {
		case ok && l.online == nil:
			c.differ("%s: record of %+v, want none", l.inside, r)
		case !ok && l.online != nil:
			c.differ("%s: no record, want one of %s/%s", l.inside, l.online.user, l.online.id)
		case ok && (r != record{l.online.user, l.online.id, l.online.nas}):
			c.differ("%s: record of %+v, want %s/%s", l.inside, r, l.online.user, l.online.id)
		}
	}
}

// bindings: an online line has one binding that is ACTIVE, or none if there is no free
// block in its group; all others have at most bindings that are held or draining.
func (c *comparison) bindings() {
	live := c.live()
	waiting := map[string]int{}
	for _, l := range c.model.lines {
		b, ok := live[l.inside]
		switch {
		case l.online != nil && !ok:
			waiting[l.group.name]++
		case l.online != nil && (!b.is("ACTIVE") || b.User != l.online.user):
			c.differ("%s: binding %v, want ACTIVE of %s", l.inside, b, l.online.user)
		case l.online == nil && ok && !(b.is("DRAINING") && !c.model.removal):
			c.differ("%s: binding %v, want none", l.inside, b)
		}
	}
	for _, g := range groups {
		waits, pending, free := waiting[g.name], 0, c.freeOf(g)
		for _, s := range c.s.status.Groups {
			if s.Name == g.name {
				pending = s.Pending
			}
		}
		if waits != pending || waits > 0 && free > 0 {
			c.differ("in group %s %d online have no block, %d are pending, %d blocks are free", g.name, waits, pending, free)
		}
	}
}

// live returns the bindings that are not held, by inside address.
func (c *comparison) live() map[netip.Addr]*binding {
	live := map[netip.Addr]*binding{}
	for i := range c.s.bindings {
		b := &c.s.bindings[i]
		if b.is("HELD") {
			continue
		}
		if other := live[b.Inside]; other != nil {
			c.differ("two bindings are live: %v and %v", other, b)
		}
		live[b.Inside] = b
	}
	return live
}

// overlaps: no two bindings share a port, held ones included, and none has a port of mappings (I1).
func (c *comparison) overlaps() {
	type owned struct {
		*binding
		blockPorts
	}
	var sorted []owned
	for i := range c.s.bindings {
		for _, p := range c.s.bindings[i].Blocks {
			sorted = append(sorted, owned{&c.s.bindings[i], p})
			if p.Last >= firstStatic {
				c.differ("%v has ports of mappings (I1)", &c.s.bindings[i])
			}
		}
	}
	slices.SortFunc(sorted, func(a, b owned) int {
		return cmp.Or(a.Outside.Compare(b.Outside), cmp.Compare(a.First, b.First))
	})
	for i := 1; i < len(sorted); i++ {
		if a, b := &sorted[i-1], &sorted[i]; a.Outside == b.Outside && b.First <= a.Last {
			c.differ("two own a port (I1): %v and %v", a.binding, b.binding)
		}
	}
}

// pools: every block is used, held or free, and the counts agree with the bindings.
func (c *comparison) pools() {
	used, held := 0, 0
	for i := range c.s.bindings {
		if c.s.bindings[i].is("HELD") {
			held += len(c.s.bindings[i].Blocks)
		} else {
			used += len(c.s.bindings[i].Blocks)
		}
	}
	var sum pool
	want := briefCapacity
	for _, g := range groups {
		want += g.capacity()
	}
	for _, p := range c.s.pools {
		sum.Total += p.Total
		sum.Used += p.Used
		sum.Held += p.Held
		sum.Free += p.Free
		switch {
		case p.Prefix != secondPool.String():
		case p.Draining:
			want += p.Used + p.Held // its free blocks are nobody's any more
		default:
			want += defaultGroup.blocksOf(secondPool)
		}
	}
	if sum.Total != want || sum.Total != sum.Used+sum.Held+sum.Free || sum.Used != used || sum.Held != held {
		c.differ("pools %+v, want %d blocks; bindings use %d and hold %d (DEL-10): %+v", sum, want, used, held, c.s.pools)
	}
}

// kernel: there are gate and block elements for exactly the live bindings. The range of new
// sessions is of blocks of the binding.
func (c *comparison) kernel() {
	gates, blocks := map[netip.Addr]string{}, map[netip.Addr]string{}
	for inside, b := range c.live() {
		gates[inside], blocks[inside] = "return", b.block()
		if len(b.Blocks) > 1 && slices.Contains(b.ranges(), c.s.blocks[inside]) {
			blocks[inside] = c.s.blocks[inside]
		}
		if b.is("DRAINING") {
			gates[inside] = "goto"
		}
	}
	c.sameElements("gate", c.s.gates, gates)
	c.sameElements("block", c.s.blocks, blocks)
}

func (c *comparison) sameElements(name string, have, want map[netip.Addr]string) {
	for inside, v := range have {
		if want[inside] != v {
			c.differ("%s: element %q of map %s, want %q", inside, v, name, want[inside])
		}
	}
	for inside, v := range want {
		if _, ok := have[inside]; !ok {
			c.differ("%s: no element in map %s, want %q", inside, name, v)
		}
	}
}

// stored: Redis has the same bindings, for the next start.
func (c *comparison) stored() {
	want := map[string]bool{}
	for i := range c.s.bindings {
		b := &c.s.bindings[i]
		field := fmt.Sprintf("%s:%d", b.Outside, b.Blocks[0].First)
		want[field] = true
		row, ok := c.s.stored[field]
		blocks := []blockPorts{{b.Blocks[0].First, row.Last}}
		for _, more := range row.More {
			blocks = append(blocks, blockPorts{more[0], more[1]})
		}
		if !ok || row.Inside != b.Inside || !slices.Equal(blocks, b.Blocks) || row.Held != b.is("HELD") {
			c.differ("stored binding %s: %+v, want %v", field, row, b)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(c.s.stored)) {
		if !want[field] {
			c.differ("stored binding %s: %+v, want none", field, c.s.stored[field])
		}
	}
}

// owns reports whether the outside port of a session is the subscriber's: in one of its blocks,
// or that of a mapping of its inside port.
func (c *comparison) owns(b *binding, e *entry) bool {
	return b.covers(e.seen) || slices.ContainsFunc(c.mappings, func(m *mapping) bool {
		return m.protocol == e.protocol && m.outside == e.seen && m.port == e.inside.Port() && c.holder(m) == b
	})
}

// sessions: every conntrack entry is of an address with a live binding, and at a port that it
// owns, or without NAT where it should be (NAT-40). So no entry is left of an ended subscriber,
// or of an ended mapping.
func (c *comparison) sessions() {
	live := c.atRest
	for _, e := range c.s.entries {
		b, ok := live[e.inside.Addr()]
		plain := e.remote.Addr() == plainHost && ok && b.Group == growingGroup.name
		if !ok {
			c.differ("entry of an address without a binding: %s", e.text)
		} else if plain != (e.seen == e.inside) || !plain && !c.owns(b, &e) {
			c.differ("entry outside of %v (NAT-40): %s", b, e.text)
		}
	}
}
