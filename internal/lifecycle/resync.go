package lifecycle

import (
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Reprogram has the kernel's entry for a slot at rest programmed again. It reports whether
// it did: a busy slot is programmed anyway.
func (m *Machine) Reprogram(s *Slot) bool {
	if s.busy {
		return false
	}
	m.work(s)
	m.out.Program(s.work())
	return true
}

// StoreAgain has the binding of a block stored again, if it is in force.
func (m *Machine) StoreAgain(block nat.Block) {
	if b, ok := m.engine.AtOutside(block.Outside, block.First); ok && b.Block == block {
		m.store(Write{Binding: b})
	}
}

// Unstore has a stored binding of a group removed that is not in force, unless another
// subscriber has got the block meanwhile.
func (m *Machine) Unstore(stale nat.Binding) {
	if b, ok := m.engine.AtOutside(stale.Outside, stale.First); ok && b.Group == stale.Group && b.First == stale.First {
		return
	}
	m.store(Write{Binding: stale, Remove: true})
}

// RemoveStray has kernel elements removed that no binding accounts for, with the sessions
// that used them.
func (m *Machine) RemoveStray(group string, e nat.Entry, now time.Time) {
	m.now = now
	s := m.slots.at(e.Inside)
	if s == nil {
		s = newSlot(HolderRecord(group, nat.Holder{Inside: e.Inside}), nat.Block{})
		m.slots.put(e.Inside, s)
	}
	if s.busy { // an operation before this one set it in motion: the next comparison looks again
		return
	}
	s.stray = true
	m.enter(s, Open)
	m.step(s)
}

// Doubt counts a record that the database lost as one that no BNG has
// confirmed, before it is written back: the alarm must not pause between.
func (m *Machine) Doubt(s *Slot) {
	m.count(&s.packed, -1)
	r := s.packed.Record()
	r.Unconfirmed = true
	s.packed = r.Pack()
	m.count(&s.packed, +1)
}

// Unversion forgets the versions of a group's records: they name entries of a feed that is
// lost, and those of the new one may be lower.
func (m *Machine) Unversion(group string) {
	for _, s := range m.slots.all() {
		if s.Group() == group {
			s.packed = s.packed.Unversioned()
		}
	}
}

// GoneReason guesses why a record is gone that nobody told of.
func GoneReason(s *Slot, now time.Time) subscriber.Reason {
	if at := s.packed.ExpiresAt(); !at.IsZero() && !at.After(now) {
		return subscriber.ReasonExpired
	}
	return subscriber.ReasonRemovedInDatabase
}
