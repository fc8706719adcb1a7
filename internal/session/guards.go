package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

// SetGuards changes the limits of the named groups.
func (m *Manager) SetGuards(limits map[string]guard.Limits) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guards = maps.Clone(limits)
	for name, l := range limits {
		if g := m.groups[name]; g != nil {
			g.Guard.SetLimits(l)
		}
	}
}

// known returns the records of the keys as the slots know them, for the database
// to tell which of them are gone.
func (m *Manager) known(keys []subscriber.Key) []subscriber.Record {
	m.mu.RLock()
	defer m.mu.RUnlock()
	records := make([]subscriber.Record, len(keys))
	for i, k := range keys {
		records[i] = m.knownRLocked(k)
	}
	return records
}

func (m *Manager) knownRLocked(k subscriber.Key) subscriber.Record {
	s := m.life.Slot(k.Inside)
	if s == nil || !s.Online() || s.Group() != k.Group {
		return subscriber.Record{Key: k}
	}
	r := s.Record()
	if r.Version == "" { // known from its binding alone, so nothing older is about it
		if b, ok := m.engine.Live(k.Group, k.Inside); ok {
			r.Version = fmt.Sprintf("%d-0", b.AllocatedAt.UnixMilli())
		}
	}
	return r
}

// judge asks the guards about records that are gone, and returns those whose end
// is to be announced and those to be held.
func (m *Manager) judge(gone []subscriberdb.Absence) (pass []subscriber.Key, hold []subscriber.Ending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range walk.All(&m.mu, slices.All(gone)) {
		switch a := &gone[i]; {
		case a.Told, a.Past:
		case a.Over || m.passesLocked(&a.Ending):
			pass = append(pass, a.Record.Key)
		default:
			hold = append(hold, a.Ending)
		}
	}
	return pass, hold
}

// passesLocked reports whether the record may end, and tells of a limit that is exceeded.
func (m *Manager) passesLocked(e *subscriber.Ending) bool {
	g := m.groups[e.Record.Group]
	if g == nil {
		return true // nobody is served
	}
	passes, alarm := g.Passes(m.life.Slot(e.Record.Inside), e.Reason, m.now())
	if alarm != nil {
		m.log.Error("more subscribers would go than the guard allows; their removal is held until it is confirmed or refused",
			"group", e.Record.Group, "reason", e.Reason.String(), "subscribers", g.Online(), "limit", alarm.Limit,
			"alarm", "sessiond_removals_held", "see", "sessionctl removal list")
	}
	return passes
}

// settleMissing has the end of records announced that are gone, and those written
// back that a guard holds.
func (m *Manager) settleMissing(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason) error {
	var gone []subscriberdb.Absence
	err := m.retryStore(ctx, "look at records that are gone", func(ctx context.Context) (err error) {
		gone, err = m.store.FindMissing(ctx, m.known(keys), reason)
		return m.unlessSuspect(err)
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	pass, hold := m.judge(gone)
	m.endPast(gone)
	return m.retryStore(ctx, "record a deletion by others", func(ctx context.Context) error {
		if err := m.store.SuspendRemovals(ctx, hold); err != nil {
			return err
		}
		// Those whose session is known to have ended were not written back.
		return m.unlessSuspect(m.store.AnnounceDeleted(ctx, append(keysOf(hold), pass...), reason))
	})
}

func keysOf(endings []subscriber.Ending) []subscriber.Key {
	keys := make([]subscriber.Key, len(endings))
	for i := range endings {
		keys[i] = endings[i].Record.Key
	}
	return keys
}

// unlessSuspect makes nothing of the error that the database does not know itself
// to be complete: nothing is taken for deleted then (I6), and a reconcile follows.
func (m *Manager) unlessSuspect(err error) error {
	if errors.Is(err, subscriberdb.ErrSuspect) {
		m.reconcileSoon()
		return nil
	}
	return err
}

// settleOrphans ends slots whose records are not there when their feed is taken up
// anew, or has the records written back that a guard holds. It comes before any
// gate is touched.
func (m *Manager) settleOrphans(ctx context.Context, group string, orphans []netip.Addr) error {
	if len(orphans) == 0 {
		return nil
	}
	keys := make([]subscriber.Key, len(orphans))
	for i, inside := range orphans {
		keys[i] = subscriber.Key{Group: group, Inside: inside}
	}
	gone, err := m.store.FindMissing(ctx, m.known(keys), subscriber.ReasonNone)
	if err != nil {
		return err
	}
	_, hold := m.judge(gone)
	if err := m.store.SuspendRemovals(ctx, hold); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range walk.All(&m.mu, slices.All(gone)) {
		m.endGoneLocked(&gone[i])
	}
	return nil
}

// endPast ends the slots of records whose end no feed tells any more. A slot whose
// record has another version by now was told of its address since.
func (m *Manager) endPast(gone []subscriberdb.Absence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range gone {
		a := &gone[i]
		s := m.life.Slot(a.Record.Inside)
		if !a.Past || s == nil || !s.Online() {
			continue
		}
		if v := s.Packed().Version(); v != (subscriber.Version{}) && v != subscriber.ParseVersion(a.Record.Version) {
			continue
		}
		m.life.End(s, a.Reason, m.now())
	}
}

// endGoneLocked ends the slot of a record that is gone, unless that is held. Its
// end may be told already, in the part of the feed that is not read, or that is lost.
func (m *Manager) endGoneLocked(a *subscriberdb.Absence) {
	if !a.Told && !a.Past {
		m.missing.push(absentKey{a.Record.Key, a.Reason}) // looked at again: the session of a held one may have ended
	}
	s := m.life.Slot(a.Record.Inside)
	if s != nil && s.Online() && !s.Held() {
		m.life.End(s, a.Reason, m.now())
	}
}
