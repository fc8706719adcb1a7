package lifecycle

import (
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Apply applies a change of a record, in the order of the feed. A deletion ends
// the slot's tenure, and step closes the gate as next decides.
func (m *Machine) Apply(c *subscriber.Change, now time.Time) {
	m.now = now
	s := m.slots.at(c.Record.Inside())
	if s != nil && s.online && s.packed.Version().Compare(c.ID) >= 0 {
		return // the slot's snapshot is newer
	}
	if c.Partial {
		if s == nil || !s.online {
			return // its record was deleted while the snapshot was taken; the feed will report that
		}
		if c.Kind == subscriber.Updated {
			m.counters(s, &c.Record)
			return
		}
		s.packed.Refresh(&c.Record) // the last counters, from the Stop
	}
	switch c.Kind {
	case subscriber.Deleted:
		if s == nil || !s.online {
			return
		}
		bound := s.over == nil
		m.end(s, c.Reason, c.ID.Time())
		if bound && c.Reason == subscriber.ReasonStop {
			m.grantGrace(s, c.Cause)
		}
	case subscriber.Created, subscriber.Updated:
		s = m.stand(s, &c.Record, c.ID.Time())
	}
	m.touch(s)
	m.step(s)
}

// End ends the slot of a missing record whose end no change reports.
func (m *Machine) End(s *Slot, reason subscriber.Reason, now time.Time) {
	m.now = now
	m.end(s, reason, now)
	m.touch(s)
	m.step(s)
}

func (m *Machine) end(s *Slot, reason subscriber.Reason, at time.Time) {
	m.count(&s.packed, -1)
	s.end(reason, at)
	m.recall(s)
	m.engine.Forget(s.Group(), s.Inside())
	m.emitChange(inspect.EventDeleted, reason, &s.packed)
}

// Stand puts a record in force, as read from the database, into the slot of its
// address.
func (m *Machine) Stand(r *subscriber.Packed, now time.Time) {
	m.now = now
	m.step(m.stand(m.slots.at(r.Inside()), r, now))
}

// stand puts a record in force into the slot of its address, and creates the
// slot if there is none. If the slot has a record of another session, that one
// ends first, even without a change in the feed.
func (m *Machine) stand(s *Slot, r *subscriber.Packed, at time.Time) *Slot {
	if s == nil {
		s = &Slot{}
		m.slots.put(r.Inside(), s)
	}
	if s.online && !s.packed.SameSession(r) {
		m.end(s, subscriber.ReasonSuperseded, at)
	}
	kind := inspect.EventUpdated
	if s.online {
		if r.RemovalHeld() != subscriber.ReasonNone && s.packed.RemovalHeld() == subscriber.ReasonNone {
			kind = inspect.EventRemovalHeld
		}
		m.refresh(s, r)
	} else {
		kind = inspect.EventCreated
		s.begin(r)
		m.count(r, +1)
	}
	m.expire(s)
	m.emitChange(kind, r.RemovalHeld(), r)
	return s
}

// counters applies an update of counters and times alone, as nearly all are.
func (m *Machine) counters(s *Slot, r *subscriber.Packed) {
	s.packed.Refresh(r)
	s.judged = unjudged
	m.expire(s)
	m.touch(s)
	m.emitChange(inspect.EventUpdated, s.packed.RemovalHeld(), &s.packed)
}

// Refresh puts newer data of the same session into its slot; older data changes
// nothing.
func (m *Machine) Refresh(r *subscriber.Packed, now time.Time) {
	m.now = now
	s := m.slots.at(r.Inside())
	if s == nil || !s.online || s.packed.Version().Compare(r.Version()) >= 0 {
		return
	}
	m.refresh(s, r)
	m.expire(s)
}

func (m *Machine) refresh(s *Slot, r *subscriber.Packed) {
	m.count(&s.packed, -1)
	m.count(r, +1)
	before, holder := holderOf(&s.packed), holderOf(r)
	s.packed, s.judged = *r, unjudged
	if holder == before {
		return
	}
	if b, err := m.engine.SetHolder(r.Group(), holder); err == nil {
		m.store(Write{Binding: b})
	}
}

// count adds a record to the counts and lists of records in force, or removes
// it.
func (m *Machine) count(r *subscriber.Packed, change int) {
	if change > 0 {
		m.online.add(r)
	} else {
		m.online.remove(r)
	}
	if client, _ := r.Reporter(); client != "" {
		m.out.Online(client, change)
	}
	g := m.groups.Named(r.Group())
	if g == nil {
		return
	}
	g.online += change
	if why := r.RemovalHeld(); why != subscriber.ReasonNone {
		g.held[why] += change
	}
	if r.Unconfirmed() {
		g.unconfirmed += change
	}
}
