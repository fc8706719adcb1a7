package session

import (
	"iter"
	"maps"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// A line that is lost is often back in a moment, under a new Acct-Session-Id.
// Where the group grants a grace time for the cause, the binding of such an end is
// DRAINING meanwhile, and the same subscriber on the same inside address gets it
// back with its live sessions.

// grantGraceLocked begins the grace time of a slot that a Stop has just ended, if
// its group grants one for the cause. Who cannot be recognised cannot come back.
func (m *Manager) grantGraceLocked(s *slot, cause uint32) {
	g := m.groups[s.group()]
	if g == nil || s.over == nil {
		return
	}
	if grace := g.config.GraceFor(cause); grace > 0 && s.packed.Identity() != "" {
		m.beginGraceLocked(s, m.now().Add(grace))
	}
}

// inGraceLocked reports whether the slot's grace time runs.
func (m *Manager) inGraceLocked(s *slot) bool {
	return s.over != nil && !s.over.graceUntil.IsZero() && m.now().Before(s.over.graceUntil)
}

// sameSubscriberLocked reports whether the record that stands is of the
// subscriber that the binding was made for.
func (m *Manager) sameSubscriberLocked(s *slot) bool {
	b, ok := m.engine.Live(s.group(), s.inside())
	return ok && b.Identity != "" && b.Identity == s.packed.Identity()
}

// markGraceLocked notes with the binding until when its subscriber may come back;
// zero for no longer.
func (m *Manager) markGraceLocked(s *slot, until time.Time) lsn.Binding {
	b, err := m.engine.SetGrace(s.group(), s.inside(), until)
	if err != nil {
		m.log.Error("mark grace time", "group", s.group(), "inside", s.inside(), "err", err)
	}
	return b
}

// resumeLocked gives the slot's binding to the session that its subscriber came
// back with. As with a new binding, it is in the database before its gate opens.
func (m *Manager) resumeLocked(s *slot) {
	group, holder := s.group(), holderOf(&s.packed)
	if s.phase == draining {
		if _, err := m.engine.Resume(group, s.inside()); err != nil {
			m.log.Error("resume binding", "group", group, "inside", s.inside(), "err", err)
			return
		}
		delete(m.draining, s.inside())
	}
	b, err := m.engine.SetHolder(group, holder)
	if err != nil {
		m.log.Error("resume binding", "group", group, "inside", s.inside(), "err", err)
		return
	}
	s.boundTenure, s.over = s.tenure, nil
	m.enterLocked(s, returned)
	m.workLocked(s)
	m.saveLocked(save{binding: b, slot: s})
}

// lookGraceLocked ends the slot's grace time if it is over.
func (m *Manager) lookGraceLocked(s *slot, now time.Time) {
	switch {
	case s.over == nil || s.over.graceUntil.IsZero():
	case now.Before(s.over.graceUntil):
		m.timers.look(s.inside(), s.over.graceUntil)
	default:
		m.endGraceLocked(s)
	}
}

// endGraceLocked ends a grace time in which nobody came back.
func (m *Manager) endGraceLocked(s *slot) {
	s.over.graceUntil = time.Time{}
	if s.phase == draining && !s.online && m.settings.Removal != inspect.RemovalOn {
		m.saveLocked(save{binding: m.markGraceLocked(s, time.Time{})})
		if !s.busy { // else it is told once the gate is narrowed
			m.drainsLocked(s)
		}
	}
	m.stepLocked(s)
}

// drainsLocked tells that no new session begins at the slot's address, and why
// the others go on.
func (m *Manager) drainsLocked(s *slot) {
	if m.inGraceLocked(s) {
		m.publishLocked(inspect.EventGrace, s)
		return
	}
	m.publishLocked(inspect.EventDraining, s)
	if m.settings.Removal == inspect.RemovalObserve && !s.online {
		m.observeLocked(s)
	}
}

// graceRLocked adds the removals that wait for a grace time to be over.
func (m *Manager) graceRLocked(p *removalPage) {
	if !p.wants(inspect.RemovalGrace) {
		return
	}
	after := behindKey(p.after)
	slots := m.slotsRLocked(m.graces.groupsFrom(p.filter.Group, after.Group), p.filter.Inside, after, m.graces.from)
	p.from(slots, inspect.RemovalGrace, func(s *slot) (inspect.Removal, bool) {
		if s.online || s.phase != draining || !m.inGraceLocked(s) {
			return inspect.Removal{}, false
		}
		r := s.removal(inspect.RemovalGrace)
		r.DueAt, r.Sessions = s.over.graceUntil, m.kernel.SessionCount(s.inside())
		return r, true
	})
}

// graceIndex has, by group, the addresses with a grace time, for lists. It may have
// some whose subscriber is back: they stay until the timers look at them.
type graceIndex map[string]*addrtable.Table[struct{}]

// beginGraceLocked begins a grace time of the slot's ended tenure.
func (m *Manager) beginGraceLocked(s *slot, until time.Time) {
	s.over.graceUntil = until
	m.timers.look(s.inside(), until)
	g := m.graces[s.group()]
	if g == nil {
		g = new(addrtable.Table[struct{}])
		m.graces[s.group()] = g
	}
	if s.inside().Is4() {
		g.Put(s.inside(), struct{}{})
	}
}

// remove takes out an address.
func (x graceIndex) remove(inside netip.Addr) {
	for group, g := range x {
		if g.Remove(inside); g.Len() == 0 {
			delete(x, group)
		}
	}
}

// groupsFrom is that of onlineIndex.
func (x graceIndex) groupsFrom(filter, first string) []string {
	return namesFrom(maps.Keys(x), filter, first)
}

// from yields the addresses of a group from first on, which is included, in order.
func (x graceIndex) from(group string, first netip.Addr) iter.Seq[netip.Addr] {
	return addressesOf(x[group], first)
}

// removal describes the removal of the binding whose tenure is over.
func (s *slot) removal(kind inspect.RemovalKind) inspect.Removal {
	return inspect.Removal{Kind: kind, Record: s.over.record.Record(), Reason: s.over.reason, Since: s.over.at}
}

// adoptGraceLocked takes over the grace time that the stored binding of the slot
// tells of. One that is over by now ends in its turn.
func (m *Manager) adoptGraceLocked(s *slot, row subscriberdb.Binding) {
	s.over = &ending{record: s.packed, reason: subscriber.ReasonStop, at: row.ReleasedAt}
	m.beginGraceLocked(s, row.GraceUntil)
}
