package lifecycle

import (
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// recall gives an end that was found without reading its change the grace time
// that the recent feed shows.
func (m *Machine) recall(s *Slot) {
	g := m.groups.Named(s.Group())
	if g == nil || s.over == nil || !s.over.graceUntil.IsZero() || g.Recent[s.Inside()] == nil {
		return
	}
	b, ok := m.engine.Live(g.Name, s.Inside())
	if !ok {
		return
	}
	last := lastStop(&b, g.Recent[s.Inside()])
	if last == nil {
		return
	}
	at := last.ID.Time()
	until := at.Add(g.Config.GraceFor(last.Cause))
	if !m.now.Before(until) {
		return
	}
	s.over.reason, s.over.at = last.Reason, at
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
