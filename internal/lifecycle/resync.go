package lifecycle

import (
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Repairs are the changes that a comparison of database, engine and kernel may
// make to a Machine, besides changes of records.
type Repairs struct{ m *Machine }

// Repairs returns the Machine's Repairs.
func (m *Machine) Repairs() Repairs { return Repairs{m} }

// Reprogram requests that the kernel's entry of a slot at rest be programmed
// again. It reports whether it did: a busy slot is programmed anyway.
func (r Repairs) Reprogram(s *Slot) bool {
	if s.busy {
		return false
	}
	r.m.out.Program(r.m.work(s))
	return true
}

// StoreAgain requests another write of the binding of a place, if it is in force.
func (r Repairs) StoreAgain(p nat.Place) {
	if b, ok := r.m.engine.AtOutside(p.Outside, p.First); ok && b.Place() == p {
		r.m.store(Write{Binding: b, Known: true})
	}
}

// Unstore requests the removal of a stored binding that is not in force, unless
// a binding has begun at its place meanwhile.
func (r Repairs) Unstore(stale nat.Binding) {
	if b, ok := r.m.engine.AtOutside(stale.Outside, stale.First); ok && b.Group == stale.Group && b.Place() == stale.Place() {
		return
	}
	r.m.store(Write{Binding: stale, Remove: true})
}

// RemoveStray requests the removal of kernel elements without a binding, with
// the sessions that used them.
func (r Repairs) RemoveStray(group string, e nat.Entry, now time.Time) {
	r.m.now = now
	s := r.m.slots.at(e.Inside)
	if s == nil {
		s = newSlot(HolderRecord(group, nat.Holder{Inside: e.Inside}), nat.Block{})
		r.m.slots.put(e.Inside, s)
	}
	if s.busy { // an earlier operation started it: the next comparison looks again
		return
	}
	s.stray = true
	r.m.enter(s, Open)
	r.m.step(s)
}

// Doubt marks a record that the database lost as unconfirmed before it is
// written back, so that the alarm does not pause in between.
func (r Repairs) Doubt(s *Slot) {
	r.m.count(&s.packed, -1)
	record := s.packed.Record()
	record.Unconfirmed = true
	s.packed = record.Pack()
	r.m.count(&s.packed, +1)
}

// Unversion clears the versions of a group's records: they name entries of a
// lost feed, and those of the new feed may be lower.
func (r Repairs) Unversion(group string) {
	for _, s := range r.m.slots.All() {
		if s.packed.Group() == group {
			s.packed = s.packed.Unversioned()
		}
	}
}

// GoneReason returns the likely reason that a record is missing without a
// change in the feed.
func GoneReason(s *Slot, now time.Time) subscriber.Reason {
	if at := s.packed.ExpiresAt(); !at.IsZero() && !at.After(now) {
		return subscriber.ReasonExpired
	}
	return subscriber.ReasonRemovedInDatabase
}
