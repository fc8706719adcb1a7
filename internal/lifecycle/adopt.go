package lifecycle

import (
	"fmt"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// An Adoption creates slots, at a start, for the state of a group in the kernel
// and the stored bindings. The order is: bindings on which kernel and database
// agree, those of the kernel alone (live flows use them), those of the database
// alone. Then each adopted slot gets its record. A block never gets a second
// owner (I1).
type Adoption struct {
	m *Machine
	g *Group
}

// Adopt returns the Adoption of a group.
func (m *Machine) Adopt(g *Group) Adoption { return Adoption{m, g} }

// Entry creates a slot for the kernel's entry of one address. stored is the
// stored binding of the same address, the zero Binding for none; record is the
// one in force, nil for none. An entry with any blocks of the stored binding
// belongs to it: a further block is stored before it is programmed, and left out of the
// entry before it is given back. So its range is programmed again where they differ. For an
// entry that is not stored, further are other blocks in which it has sessions.
func (a Adoption) Entry(e nat.Entry, stored nat.Binding, record *subscriber.Record, further []nat.Block, now time.Time) {
	m, group := a.m, a.g.Name
	m.now = now
	if m.slots.at(e.Inside) != nil {
		return // a row may come twice
	}
	b := nat.Binding{
		Group: group, Blocks: nat.Blocks{Block: e.Block}, State: nat.Active, AllocatedAt: now,
		Holder: nat.Holder{Inside: e.Inside},
	}
	if stored.Covers(e.Block) {
		b.Blocks, b.Holder, b.AllocatedAt, b.ReleasedAt = stored.Blocks, stored.Holder, stored.AllocatedAt, stored.ReleasedAt
		b.FirstAt, b.GrownAt = stored.FirstAt, stored.GrownAt
	} else {
		if blocks, ok := m.engine.Split(group, e.Block); ok {
			b.Blocks = blocks
		}
		stored = nat.Binding{}
		if record != nil {
			packed := record.Pack()
			b.Holder = holderOf(&packed)
		}
	}
	s := newSlot(HolderRecord(group, b.Holder), b.Range())
	phase := s.adoptedPhase(e, &stored, record)
	if phase == Draining {
		b.State, b.GraceUntil = nat.Draining, stored.GraceUntil
		m.drains.begin(e.Inside)
	}
	err := m.engine.Restore(withFurther(b, further))
	if err != nil && len(further) > 0 {
		err = m.engine.Restore(b) // one of them is another's
	}
	if err != nil {
		m.out.Fault("kernel element belongs to no binding, will be removed", s.Key(), at(b.Block, err))
		s.stray = true
	} else if !stored.GraceUntil.IsZero() {
		s.over = &teardown{record: s.packed, why: subscriber.End{Reason: subscriber.ReasonStop}, at: stored.ReleasedAt}
		m.beginGrace(s, stored.GraceUntil) // one that is over already ends at the next Tick
	}
	if e.Forwards != (nat.Forwards{}) {
		s.ports = &slotForwards{list: e.Forwards}
	}
	m.enter(s, phase)
	m.slots.put(e.Inside, s)
}

// withFurther returns the binding with further blocks, before its own: those of new
// sessions are the newest.
func withFurther(b nat.Binding, further []nat.Block) nat.Binding {
	if len(further) == 0 {
		return b
	}
	whole := b
	whole.Blocks, whole.GrownAt = nat.Blocks{Block: further[0]}, b.AllocatedAt
	for _, x := range slices.AppendSeq(further[1:len(further):len(further)], b.All()) {
		var ok bool
		if whole.Blocks, ok = whole.With(x); !ok {
			return b
		}
	}
	return whole
}

// adoptedPhase returns the phase of a kernel entry with its stored binding. If
// the gate is narrowed and the binding is stored for the session that is
// online, the gate was about to be opened again.
func (s *Slot) adoptedPhase(e nat.Entry, stored *nat.Binding, record *subscriber.Record) Phase {
	if e.Gate != nat.GateDraining {
		return Open
	}
	if record != nil && stored.Inside == e.Inside && stored.ReleasedAt.IsZero() {
		if own := s.packed.Record(); own.SameSession(record) {
			return Returned
		}
	}
	return Draining
}

// Stored creates a slot for a stored binding that the kernel lacks. record is
// the one in force at its address, nil for none.
func (a Adoption) Stored(stored nat.Binding, record *subscriber.Record, now time.Time) {
	m, g := a.m, a.g
	m.now = now
	held := stored.State == nat.Held
	s := m.slots.at(stored.Inside)
	if s != nil && !s.stray && stored.Covers(s.block) && !held {
		return // the kernel has it
	}
	b := stored
	b.GraceUntil = time.Time{}
	if s != nil && !held {
		// The address is served from another block; this one must have been in use.
		b.State, b.ReleasedAt = nat.Held, now
		b.HoldUntil = now.Add(g.Config.Hold)
	}
	if latest := now.Add(g.Config.Hold); b.State == nat.Held && b.HoldUntil.After(latest) {
		b.HoldUntil = latest // written under a clock that was ahead
	}
	if err := m.engine.Restore(b); err != nil {
		// The comparison that follows removes the row.
		if held && !b.HoldUntil.After(now) {
			return // its prefix has gone with the last hold
		}
		m.out.Fault("stored binding cannot be restored, dropped", subscriber.Key{Group: g.Name, Inside: stored.Inside}, at(b.Block, err))
		return
	}
	if b.State == nat.Held {
		return
	}
	s = newSlot(HolderRecord(g.Name, b.Holder), b.Range())
	m.enter(s, Saved)
	m.slots.put(stored.Inside, s)
	if record == nil && !stored.GraceUntil.IsZero() {
		s.end(subscriber.End{Reason: subscriber.ReasonStop}, now) // known to be over, and no session is left to resume
		s.boundTenure = s.tenure
	}
}

// Refused puts each block of a stored binding that was refused as a whole into a
// hold of its own, except those of others: its subscriber may have used them
// until now (I5).
func (a Adoption) Refused(stored nat.Binding, now time.Time) {
	b := stored
	if latest := now.Add(a.g.Config.Hold); b.State != nat.Held {
		b.State, b.ReleasedAt, b.HoldUntil, b.GraceUntil = nat.Held, now, latest, time.Time{}
	} else if b.HoldUntil.After(latest) {
		b.HoldUntil = latest
	}
	for x := range stored.All() {
		b.Blocks = nat.Blocks{Block: x}
		_ = a.m.engine.Restore(b) // an error: it is another's, or no block of the group
	}
}

// Unclaimed reports whether an adopted slot still waits for Claim.
func (s *Slot) Unclaimed() bool {
	return !s.online && s.phase != Idle && s.tenure == 0 && (s.over == nil || !s.over.graceUntil.IsZero())
}

// Claim sets the record of an adopted slot, nil for none. A draining slot, and
// one with a grace time, has ended already. Any other slot without a record
// counts as online: the comparison that follows ends it, or writes its record
// back, which is unconfirmed in a suspect database.
func (a Adoption) Claim(s *Slot, record *subscriber.Record, suspect bool, now time.Time) {
	m := a.m
	m.now = now
	switch {
	case s.phase == Draining, s.over != nil:
		s.end(subscriber.End{}, now)
		m.recall(s)
		if record != nil {
			packed := record.Pack()
			s.begin(&packed)
		}
	case record == nil:
		bound := s.packed.Record()
		bound.Unconfirmed = suspect
		packed := bound.Pack()
		s.begin(&packed)
		s.boundTenure = s.tenure
	default:
		packed := record.Pack()
		own, before := s.packed.SameSession(&packed), s.packed
		s.begin(&packed)
		if own {
			s.boundTenure = s.tenure
			m.engine.Share(s.packed.Group(), holderOf(&s.packed))
		} else {
			s.over = &teardown{record: before, why: subscriber.End{Reason: subscriber.ReasonSuperseded}, at: now}
			m.recall(s)
		}
	}
	if s.online {
		m.count(&s.packed, +1)
		m.expire(s)
	}
}

// Assign gives a claimed slot, and others of its user, their mappings. That waits until all slots
// are claimed: before, another one of the user may seem to be the newest, and the kernel would
// lead new flows there.
func (a Adoption) Assign(s *Slot, now time.Time) {
	a.m.now = now
	ForwardsOf(a.m).assign(s)
}

// Quarantine holds all free blocks of the group back for one hold time
// (NAT-30).
func (a Adoption) Quarantine(now time.Time) { a.m.engine.Quarantine(a.g.Name, now) }

// at adds the block to an error.
func at(b nat.Block, err error) error {
	return fmt.Errorf("outside %s, ports from %d: %w", b.Outside, b.First, err)
}
