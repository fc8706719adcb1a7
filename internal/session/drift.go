package session

import (
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// drift is a difference with what is needed to mend it.
type drift struct {
	inspect.Drift
	record  subscriber.Record    // DriftRecordUnseen
	entry   nftnat.Entry         // DriftElementOrphaned
	binding lsn.Binding          // DriftBindingUnsaved
	stored  subscriberdb.Binding // DriftBindingStale
}

// compareLocked hands over, one by one, how database, engine and kernel differ,
// to be mended at once if at all: between two of them others may have had the
// lock. Addresses that are being worked on, or changed since the observation, are
// left for the next time.
func (m *Manager) compareLocked(g *group, o *observation, found func(drift)) {
	add := func(kind inspect.DriftKind, inside netip.Addr, d drift, what string, args ...any) {
		d.Drift = inspect.Drift{Kind: kind, Group: g.name, Inside: inside, What: fmt.Sprintf(what, args...)}
		found(d)
	}
	m.compareRecordsLocked(g, o, add)
	m.compareKernelLocked(g, o, add)
	m.compareStoredLocked(g, o, add)
}

type addDrift func(kind inspect.DriftKind, inside netip.Addr, d drift, what string, args ...any)

func (m *Manager) movingLocked(g *group, inside netip.Addr) bool {
	if s := m.slots[inside]; s != nil && s.busy {
		return true
	}
	_, touched := g.touched[inside]
	return touched
}

// compareRecordsLocked compares records with slots. When the feed is taken up
// anew, nothing but this look tells of ends that it told before: slots are not
// passed over then because they are being worked on.
func (m *Manager) compareRecordsLocked(g *group, o *observation, add addDrift) {
	passOver := func(inside netip.Addr) bool { return !o.anew && m.movingLocked(g, inside) }
	for inside, r := range walk(&m.mu, o.records) {
		if passOver(inside) {
			continue
		}
		switch s := m.slots[inside]; {
		case s == nil, !s.online:
			add(inspect.DriftRecordUnseen, inside, drift{record: r}, "record %q has no slot; taken up", r.UserName)
		case !s.record.SameSession(&r):
			add(inspect.DriftRecordUnseen, inside, drift{record: r}, "record is of another session; the old one ends")
		case subscriber.CompareVersions(r.Version, s.record.Version) > 0:
			m.refreshLocked(s, r)
			m.timers.expire(inside, r.ExpiresAt)
		}
	}
	for inside, s := range walk(&m.mu, m.slots) {
		if s.record.Group != g.name || passOver(inside) || !s.online {
			continue
		}
		if _, ok := o.records[inside]; !ok {
			add(inspect.DriftBindingOrphaned, inside, drift{}, "record of %q is gone from the database", s.record.UserName)
		} else if s.phase == idle && !m.engine.IsPending(g.name, inside) {
			add(inspect.DriftRecordUnbound, inside, drift{}, "subscriber %q has no block; allocated", s.record.UserName)
		}
	}
}

func (m *Manager) compareKernelLocked(g *group, o *observation, add addDrift) {
	for inside, e := range walk(&m.mu, o.kernel) {
		s := m.slots[inside]
		if m.movingLocked(g, inside) || s != nil && s.stray {
			continue
		}
		switch {
		case s == nil || s.expected().Gate == nftnat.Closed:
			add(inspect.DriftElementOrphaned, inside, drift{entry: e}, "kernel elements without a binding (%s ports %d-%d); removed", e.Outside, e.First, e.Last)
		case s.expected() != e:
			add(inspect.DriftElementDiffers, inside, drift{}, "kernel has %s ports %d-%d, gate %d; programmed anew", e.Outside, e.First, e.Last, e.Gate)
		}
	}
	for inside, s := range walk(&m.mu, m.slots) {
		if s.record.Group != g.name || m.movingLocked(g, inside) || s.expected().Gate == nftnat.Closed || s.stray {
			continue
		}
		if _, ok := o.kernel[inside]; !ok {
			add(inspect.DriftElementMissing, inside, drift{}, "gate or block element is missing in the kernel; programmed anew")
		}
	}
}

func (m *Manager) compareStoredLocked(g *group, o *observation, add addDrift) {
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		from = m.engine.BindingsFrom(g.name, from, breathEvery, func(b lsn.Binding) {
			m.compareBindingLocked(g, o, b, add)
		})
		breathe(&m.mu)
	}
	for block, row := range walk(&m.mu, o.stored) {
		b, ok := m.engine.AtOutside(block.Outside, block.First)
		if stands := ok && b.First == block.First; !stands && m.unsaved[block] == 0 && !m.movingLocked(g, row.Inside) {
			add(inspect.DriftBindingStale, row.Inside, drift{stored: row}, "stored binding of %s ports %d-%d is not in force; removed", row.Outside, row.First, row.Last)
		}
	}
}

func (m *Manager) compareBindingLocked(g *group, o *observation, b lsn.Binding, add addDrift) {
	if m.unsaved[b.Block] > 0 || m.movingLocked(g, b.Inside) {
		return
	}
	row, ok := o.stored[b.Block]
	if same := ok && row.Inside == b.Inside && row.Held == (b.State == lsn.Held) && row.UserName == b.UserName; !same {
		add(inspect.DriftBindingUnsaved, b.Inside, drift{binding: b}, "binding of %s ports %d-%d is not stored so; stored", b.Outside, b.First, b.Last)
	}
}

// mendLocked does what the drift asks for, and returns records that the
// database has lost.
func (m *Manager) mendLocked(g *group, o *observation, d drift) []subscriber.Record {
	s := m.slots[d.Inside]
	switch d.Kind {
	case inspect.DriftRecordUnseen:
		m.stepLocked(m.onlineLocked(d.record, m.now()))
	case inspect.DriftBindingOrphaned:
		if g.suspect {
			m.doubtLocked(s)
			return []subscriber.Record{s.record}
		}
		m.missing.push(missing{s.record.Key, m.goneReason(s)})
		if o.anew { // its end may be told already, in the part of the feed that was not read
			m.endLocked(s, m.goneReason(s), m.now())
			m.stepLocked(s)
		}
	case inspect.DriftRecordUnbound:
		m.stepLocked(s)
	case inspect.DriftElementMissing, inspect.DriftElementDiffers:
		if !s.busy { // else a drift mended before this one set it in motion
			m.workLocked(s)
			m.opens.push(d.Inside)
		}
	case inspect.DriftElementOrphaned:
		m.strayLocked(g, d.entry)
	case inspect.DriftBindingUnsaved:
		m.saveLocked(save{binding: d.binding})
	case inspect.DriftBindingStale:
		m.saveLocked(save{binding: restoredBinding(d.stored), remove: true})
	}
	return nil
}

// goneReason guesses why a record is gone that nobody told of.
func (m *Manager) goneReason(s *slot) subscriber.Reason {
	if at := s.record.ExpiresAt; !at.IsZero() && !at.After(m.now()) {
		return subscriber.ReasonExpired
	}
	return subscriber.ReasonRemovedInDatabase
}

// strayLocked has kernel elements removed that no binding accounts for, with
// the sessions that used them.
func (m *Manager) strayLocked(g *group, e nftnat.Entry) {
	s := m.slots[e.Inside]
	if s == nil {
		s = &slot{record: recordOf(g.name, lsn.Holder{Inside: e.Inside})}
		m.slots[e.Inside] = s
	}
	if s.busy { // a drift mended before this one set it in motion: the next comparison looks again
		return
	}
	s.stray = true
	m.enterLocked(s, open)
	m.stepLocked(s)
}
