package lifecycle

import (
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// After a lost carrier a subscriber is often back within moments, with a new
// Acct-Session-Id. If the group grants a grace time for the cause, the binding
// is DRAINING meanwhile, and the same subscriber on the same inside address
// gets it back with its live sessions.

// grantGrace begins the grace time of a slot that a Stop has just ended, if its
// group grants one for the cause. A subscriber without an identity cannot be
// recognized, and gets none.
func (m *Machine) grantGrace(s *Slot, cause uint32) {
	g := m.groups.named[s.packed.Group()]
	if g == nil || s.over == nil {
		return
	}
	if grace := g.Config.GraceFor(cause); grace > 0 && s.packed.Identity() != "" {
		m.beginGrace(s, m.now.Add(grace))
	}
}

// markGrace sets the end of the binding's grace time; zero for none.
func (m *Machine) markGrace(s *Slot, until time.Time) nat.Binding {
	b, err := m.engine.SetGrace(s.packed.Group(), s.packed.Inside(), until)
	if err != nil {
		m.out.Fault("mark grace time", s.Key(), err)
	}
	return b
}

// resume gives the slot's binding to the new session of its subscriber. Like a
// new binding, it is stored before its gate opens.
func (m *Machine) resume(s *Slot) {
	group, holder := s.packed.Group(), holderOf(&s.packed)
	if s.phase == Draining {
		if _, err := m.engine.Resume(group, s.packed.Inside()); err != nil {
			m.out.Fault("resume binding", s.Key(), err)
			return
		}
		delete(m.drains.at, s.packed.Inside())
	}
	b, err := m.engine.SetHolder(group, holder)
	if err != nil {
		m.out.Fault("resume binding", s.Key(), err)
		return
	}
	s.boundTenure, s.over = s.tenure, nil
	m.enter(s, Returned)
	m.work(s)
	ForwardsOf(m).assign(s)
	m.store(Write{Binding: b, Slot: s})
}

// checkGrace ends the slot's grace time if it is over.
func (m *Machine) checkGrace(s *Slot) {
	switch {
	case s.over == nil || s.over.graceUntil.IsZero():
	case m.now.Before(s.over.graceUntil):
		m.timers.look(s.packed.Inside(), s.over.graceUntil)
	default: // the subscriber did not come back
		s.over.graceUntil = time.Time{}
		if s.phase == Draining && !s.online && m.removal != inspect.RemovalOn {
			m.store(Write{Binding: m.markGrace(s, time.Time{})})
			if !s.busy { // else it is reported once the gate is narrowed
				m.tellDrain(s)
			}
		}
		m.step(s)
	}
}

// tellDrain reports that no new session can begin at the slot's address, and
// the reason that present ones continue.
func (m *Machine) tellDrain(s *Slot) {
	if s.InGrace(m.now) {
		m.emit(inspect.EventGrace, s)
		return
	}
	m.emit(inspect.EventDraining, s)
	if m.removal == inspect.RemovalObserve && !s.online {
		m.emit(inspect.EventObserved, s)
	}
}

// beginGrace begins a grace time of the slot's ended tenure.
func (m *Machine) beginGrace(s *Slot, until time.Time) {
	s.over.graceUntil = until
	m.timers.look(s.packed.Inside(), until)
	m.graces.add(s.packed.Group(), s.packed.Inside())
}

// recall gives an end that was found without reading its change the grace time
// that the recent feed shows.
func (m *Machine) recall(s *Slot) {
	g := m.groups.named[s.packed.Group()]
	if g == nil || s.over == nil || !s.over.graceUntil.IsZero() || g.Recent[s.packed.Inside()] == nil {
		return
	}
	b, ok := m.engine.Live(g.Name, s.packed.Inside())
	if !ok {
		return
	}
	last := lastStop(&b, g.Recent[s.packed.Inside()])
	if last == nil {
		return
	}
	at := last.ID.Time()
	until := at.Add(g.Config.GraceFor(last.Cause))
	if !m.now.Before(until) {
		return
	}
	s.over.why, s.over.at = last.End, at
	m.beginGrace(s, until)
	if s.phase == Draining { // the grace time was not stored before the gate was narrowed
		m.store(Write{Binding: m.markGrace(s, until)})
	}
}

// lastStop returns the newest Stop of the binding's subscriber, if the
// binding's own session ended within these changes and no session of another
// subscriber did since; else nil. A partial change names no session: it ends
// the one created before it, or the binding's.
func lastStop(b *nat.Binding, changes []subscriber.Change) *subscriber.Change {
	var last *subscriber.Change
	identity, session := b.Identity, b.AcctSessionID
	for i := range changes {
		c := &changes[i]
		if !c.Partial {
			identity, session = c.Record.Identity(), c.Record.AcctSessionID()
		}
		switch {
		case c.Kind == subscriber.Created:
		case last == nil && session != b.AcctSessionID:
		case c.Reason != subscriber.ReasonStop, identity == "", identity != b.Identity:
			return nil
		default:
			last = c
		}
	}
	return last
}
