package session

import (
	"context"
	"net/netip"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Who finds a record gone, after a restart or a gap in the feed, did not read why.
// Where that matters, for a grace time, the feed is asked.

// readRecent reads who came and went in a group so recently that a grace time may
// still run. A record that came last and is not there was removed by other hands.
func (m *Manager) readRecent(ctx context.Context, g *group) error {
	m.mu.RLock()
	config := g.config
	m.mu.RUnlock()
	if config.Grace == 0 {
		return nil
	}
	changes, err := m.store.Recent(ctx, g.name, m.now().Add(-config.Grace))
	if err != nil {
		return err
	}
	recent := make(map[netip.Addr][]subscriber.Change)
	for _, c := range changes {
		recent[c.Record.Inside()] = append(recent[c.Record.Inside()], c)
	}
	var came []netip.Addr
	for inside, cs := range recent {
		if cs[len(cs)-1].Kind == subscriber.Created {
			came = append(came, inside)
		}
	}
	gone, err := m.store.Gone(ctx, g.name, came)
	if err != nil {
		return err
	}
	for _, inside := range gone {
		delete(recent, inside)
	}
	m.mu.Lock()
	g.recent = recent
	m.mu.Unlock()
	return nil
}

// recallLocked gives an ending that was found, and not read, the grace time that
// the feed tells of.
func (m *Manager) recallLocked(s *slot) {
	g := m.groups[s.group()]
	if g == nil || s.over == nil || !s.over.graceUntil.IsZero() || g.recent[s.inside()] == nil {
		return
	}
	b, ok := m.engine.Live(g.name, s.inside())
	if !ok {
		return
	}
	last := lastOf(&b, g.recent[s.inside()])
	if last == nil {
		return
	}
	at := last.ID.Time()
	until := at.Add(g.config.GraceFor(last.Cause))
	if !m.now().Before(until) {
		return
	}
	s.over.reason, s.over.at = last.Reason, at
	m.beginGraceLocked(s, until)
	if s.phase == draining { // it was not stored before the gate was narrowed
		m.saveLocked(save{binding: m.markGraceLocked(s, until)})
	}
}

// lastOf returns the last end at an address if that of the binding's own session is
// among the changes and no end follows but Stops of its subscriber; else nil. A
// partial change ends whoever came before it, or the binding's session.
func lastOf(b *lsn.Binding, changes []subscriber.Change) *subscriber.Change {
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
