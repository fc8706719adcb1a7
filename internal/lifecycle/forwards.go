package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/portmap"
)

// A mapping of a User-Name is where the subscriber is. Of several addresses that are online as
// one user, the one whose session got its first block last has it: a session that was never
// stopped keeps nobody from what is theirs, and does not take it back with another block. The
// kernel has the mapping while the gate of that address is open. Where a mapping goes, the
// sessions through it end with it.

// slotForwards are the mappings of a slot.
type slotForwards struct {
	list   nat.Forwards // what an open gate has
	change remapping
	gone   nat.Forwards // no longer of the list; their sessions end once the kernel has the list
}

// remapping is a change of a slot's mappings that the kernel does not have yet.
type remapping uint8

const (
	unremapped remapping = iota
	remapped
	remappedAgain // since an executor has taken the slot's entry, perhaps: it is programmed twice
)

// Forwards returns the mappings of the slot.
func (s *Slot) Forwards() nat.Forwards {
	if s.ports == nil {
		return nat.Forwards{}
	}
	return s.ports.list
}

// remapped reports whether the kernel may not have the slot's mappings.
func (s *Slot) remapped() bool { return s.ports != nil && s.ports.change != unremapped }

// MappingConfig returns the bounds of a group's mappings. It leaves out the configured ones of
// prefixes that were taken away at run time.
func MappingConfig(c *lsn.GroupConfig) portmap.Config {
	p := portmap.Config{
		Inside: c.Inside, Outside: c.Outside, Draining: c.Draining, Hold: c.Hold,
		Range: portmap.Range{First: c.Static.First, Last: c.Static.Last}, PerOwner: c.Static.PerOwner, PCP: c.Static.PCP.Mappings,
	}
	for _, m := range c.Static.Mappings {
		for _, outside := range c.AllOutside() {
			if outside.Contains(m.Outside.Addr()) {
				p.Configured = append(p.Configured, m)
			}
		}
	}
	return p
}

// Forwards are the changes of a Machine that give slots their mappings.
type Forwards struct{ m *Machine }

// ForwardsOf returns the Machine's Forwards.
func ForwardsOf(m *Machine) Forwards { return Forwards{m} }

// Changed gives the slots of an owner its mappings, after a change of the group's table.
func (x Forwards) Changed(g *Group, o nat.Owner, now time.Time) {
	x.m.now = now
	if !o.Inside.IsValid() {
		x.assignUser(g, o.UserName)
		return
	}
	if s := x.m.slots.at(o.Inside); s != nil && s.packed.Group() == g.Name {
		x.assignSlot(g, s)
	}
}

// stored takes that the binding of a slot is stored: its entry is read when it is programmed.
func (x Forwards) stored(s *Slot) {
	if s.ports != nil {
		s.ports.change = unremapped
	}
}

// At returns the inside address that has a mapping, and whether the kernel has it there.
func (x Forwards) At(g *Group, mapping *nat.Mapping) (inside netip.Addr, inForce bool) {
	inside = mapping.Owner.Inside
	if !inside.IsValid() {
		inside = g.users[mapping.Owner.UserName]
	}
	s := x.m.slots.at(inside)
	if s == nil || s.packed.Group() != g.Name || !s.Forwards().Has(mapping.Forward()) {
		return netip.Addr{}, false
	}
	return inside, s.phase == Open && !s.busy && !s.remapped()
}

// Pending reports whether an executor has yet to give an address its mappings, or take them.
func (x Forwards) Pending(inside netip.Addr) bool {
	s := x.m.slots.at(inside)
	return s != nil && s.ports != nil && (s.remapped() || s.ports.gone != nat.Forwards{} || s.busy && s.phase != Draining)
}

// Online returns the inside address at which an owner is online, the zero address for none.
func (x Forwards) Online(g *Group, o nat.Owner) netip.Addr {
	s := x.m.slots.at(o.Inside)
	if !o.Inside.IsValid() {
		s = x.newest(g, o.UserName)
	}
	if s == nil || !s.online || s.packed.Group() != g.Name {
		return netip.Addr{}
	}
	return s.packed.Inside()
}

// assign gives the slot, and others of its user, their mappings: the slot has begun or ended.
func (x Forwards) assign(s *Slot) {
	g := x.m.groups.named[s.packed.Group()]
	if g == nil || g.Mappings.Empty() && len(g.users) == 0 {
		return
	}
	if user := s.packed.UserName(); user != "" {
		if _, had := g.users[user]; !had && s.phase == Draining && s.tenure == s.boundTenure && g.Mappings.Owns(nat.Owner{UserName: user}) {
			g.users[user] = s.packed.Inside() // a start found it: its sessions through mappings go on
		}
		x.assignUser(g, user)
	}
	x.assignSlot(g, s)
}

// assignUser gives the mappings of a user to the slot that [Forwards.newest] returns, and takes
// them from the one that had them. A slot that has ended keeps them until another one has them, or
// its gate is closed: its sessions go on while it drains.
func (x Forwards) assignUser(g *Group, user string) {
	before, had := g.users[user]
	owns := g.Mappings.Owns(nat.Owner{UserName: user})
	if !owns && !had {
		return
	}
	now := x.newest(g, user)
	switch {
	case !owns:
		delete(g.users, user)
	case now != nil:
		g.users[user] = now.packed.Inside()
	}
	if s := x.m.slots.at(before); had && s != nil && s != now && s.packed.Group() == g.Name {
		x.assignSlot(g, s)
	}
	if now != nil {
		x.assignSlot(g, now)
	}
}

// newest returns the slot of a user's online session that got its first block last, nil for none.
func (x Forwards) newest(g *Group, user string) (newest *Slot) {
	var since time.Time
	for inside := range x.m.online.From(g.Name, &inspect.SubscriberFilter{UserName: user}, netip.Addr{}) {
		s := x.m.slots.at(inside)
		if s == nil || !s.online || s.packed.UserName() != user || s.tenure != s.boundTenure || s.over != nil || s.stray {
			continue
		}
		b, ok := x.m.engine.Live(g.Name, inside)
		if ok && (newest == nil || !b.Since().Before(since)) {
			newest, since = s, b.Since()
		}
	}
	return newest
}

// noteFirst keeps when the session of a slot got its first block, for the next one that it gets.
func (x Forwards) noteFirst(s *Slot) {
	g := x.m.groups.named[s.packed.Group()]
	if b, ok := x.m.engine.Live(s.packed.Group(), s.packed.Inside()); ok && g != nil && s.online && s.tenure == s.boundTenure {
		g.evicted[s.packed.Inside()] = b.Since()
	}
}

// setFirst completes a binding that a slot has just got, if its session had another block before.
func (x Forwards) setFirst(s *Slot, b *nat.Binding) {
	g, inside := x.m.groups.named[s.packed.Group()], s.packed.Inside()
	if g == nil {
		return
	}
	if first, ok := g.evicted[inside]; ok {
		delete(g.evicted, inside)
		*b, _ = x.m.engine.SetFirstAt(g.Name, inside, first)
	}
}

// assignSlot sets the mappings of a slot: those of its address, and those of its user if it has them.
// A binding that is about to be cut for another session keeps what it has.
func (x Forwards) assignSlot(g *Group, s *Slot) {
	if s.tenure != s.boundTenure || s.phase == Idle || s.phase == Cut || s.stray {
		return
	}
	inside, user := s.packed.Inside(), s.packed.UserName()
	var list, asked []nat.Forward
	for m := range g.Mappings.Of(nat.Owner{Inside: inside}) {
		switch {
		case m.Kind != nat.MappingPCP:
			list = append(list, m.Forward())
		case m.BoundAt.Equal(x.boundAt(s)):
			asked = append(asked, m.Forward())
		}
	}
	if at, ok := g.users[user]; ok && at == inside {
		for m := range g.Mappings.Of(nat.Owner{UserName: user}) {
			list = append(list, m.Forward())
		}
	}
	if user == "" {
		list = append(list, x.foundAt(g, s)...)
	}
	x.set(s, nat.NewForwards(append(list, asked...))) // of one inside port the first counts: what a person gave
}

// Mappings that a subscriber asked for by PCP are of its binding, whatever record that has: a
// grace time, and a drain, leave them. They end as the gate closes, in the same cut.

// boundAt returns when the slot's live binding was allocated, zero for none.
func (x Forwards) boundAt(s *Slot) time.Time {
	b, _ := x.m.engine.Live(s.packed.Group(), s.packed.Inside())
	return b.AllocatedAt
}

// Bound returns the binding for which a subscriber may ask for mappings by PCP: the gate of its
// inside address is open, for the session that is online.
func (x Forwards) Bound(g *Group, inside netip.Addr) (nat.Binding, bool) {
	s := x.m.slots.at(inside)
	if s == nil || s.phase != Open || !s.online || !s.Own() || s.over != nil || s.packed.Group() != g.Name {
		return nat.Binding{}, false
	}
	return x.m.engine.Live(g.Name, inside)
}

// InSlot returns the mappings of an inside address, and whether the kernel has them.
func (x Forwards) InSlot(inside netip.Addr) (f nat.Forwards, inForce bool) {
	s := x.m.slots.at(inside)
	if s == nil {
		return nat.Forwards{}, true
	}
	return s.Forwards(), !s.busy && !s.remapped()
}

// EndAsked ends the mappings by PCP of the inside addresses whose binding is not live any more:
// they are of an earlier run, which could not store their end.
func (x Forwards) EndAsked(g *Group, now time.Time) {
	x.m.now = now
	stale := map[netip.Addr]bool{}
	for m := range g.Mappings.From(nat.Endpoint{}) {
		if m.Kind == nat.MappingPCP && !m.Ended() {
			stale[m.Owner.Inside] = true
		}
	}
	for inside := range stale {
		var kept time.Time
		if b, ok := x.m.engine.Live(g.Name, inside); ok && b.State != nat.Cut {
			kept = b.AllocatedAt
		}
		x.endAsked(g, inside, kept)
	}
}

// endAsked ends the mappings by PCP of an inside address, except those of the binding allocated
// at kept.
func (x Forwards) endAsked(g *Group, inside netip.Addr, kept time.Time) {
	if ended := g.Mappings.EndAsked(inside, kept, x.m.now); len(ended) > 0 {
		x.m.out.MappingsEnded(ended)
	}
}

// foundAt returns the mappings of users that a slot without a User-Name has: a start found them in
// the kernel, beside a database that was lost, and the user is at no other address. So their
// sessions go on until accounting names the user (I6).
func (x Forwards) foundAt(g *Group, s *Slot) (list []nat.Forward) {
	for f := range s.Forwards().All() {
		m, ok := g.Mappings.At(f.Endpoint())
		if user := m.Owner.UserName; ok && user != "" && !m.Ended() && m.Forward() == f {
			if _, known := g.users[user]; !known {
				g.users[user] = s.packed.Inside()
			}
			if g.users[user] == s.packed.Inside() {
				list = append(list, f)
			}
		}
	}
	return list
}

// set changes the mappings of a slot, and has them programmed.
func (x Forwards) set(s *Slot, list nat.Forwards) {
	if list == s.Forwards() {
		return
	}
	if s.ports == nil {
		s.ports = &slotForwards{}
	}
	p := s.ports
	p.gone = nat.NewForwards(appendAll(appendAll(nil, p.gone.Less(list)), p.list.Less(list)))
	p.list = list
	switch {
	case s.busy:
		p.change = remappedAgain
	case s.phase == Open:
		p.change = remapped
	default:
		x.done(s)
	}
	x.m.touch(s.packed.Group(), s.packed.Inside())
	x.m.step(s)
}

func appendAll(list []nat.Forward, f nat.Forwards) []nat.Forward {
	for one := range f.All() {
		list = append(list, one)
	}
	return list
}

// done takes that the kernel has the entry of a slot, as an executor has read it. Of a slot
// that was cut all sessions end.
func (x Forwards) done(s *Slot) {
	p := s.ports
	switch {
	case p == nil:
		return
	case s.phase == Cut || s.phase == Idle:
		s.ports = nil
		return
	case p.change == remappedAgain && s.phase == Open:
		p.change = remapped
		return
	}
	p.change = unremapped
	if p.gone != (nat.Forwards{}) {
		x.m.out.EndSessions(s.packed.Inside(), p.gone)
		p.gone = nat.Forwards{}
	}
	if p.list == (nat.Forwards{}) {
		s.ports = nil
	}
}
