package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// NextDue returns when [Machine.Tick] has something to do next, a minute from now at most.
// Effects.WakeTimers tells when that becomes earlier.
func (m *Machine) NextDue(now time.Time) time.Time {
	m.holdsSeen = now.Add(time.Minute)
	if hold, ok := m.engine.Next(); ok && hold.Before(m.holdsSeen) {
		m.holdsSeen = hold
	}
	if at, ok := m.timers.next(); ok && at.Before(m.holdsSeen) {
		return at
	}
	return m.holdsSeen
}

// Tick carries out what the time has brought: it frees blocks whose quarantine is over,
// serves subscribers that wait for one, ends grace times, and has records looked up that
// should have expired.
func (m *Machine) Tick(now time.Time) {
	m.now = now
	freed, served := m.engine.Advance(now, nil, nil)
	for i := range freed {
		m.store(Write{Binding: freed[i], Remove: true})
		m.out.Emit(Transition{Kind: inspect.EventReleased, At: now, Binding: &freed[i]})
	}
	for i := range served {
		if s := m.slots.at(served[i].Inside); s != nil {
			m.step(s)
		}
	}
	for _, inside := range m.timers.pop(now) {
		m.checkDue(inside)
	}
}

// checkDue looks at an address of which something may be over.
func (m *Machine) checkDue(inside netip.Addr) {
	if lookedAt := m.slots.lookedAt(inside); lookedAt != nil {
		*lookedAt = 0
	}
	if s := m.slots.at(inside); s != nil {
		m.checkExpired(s)
		m.checkGrace(s)
	}
	if s := m.slots.at(inside); s == nil || !s.InGrace(m.now) {
		m.graces.remove(inside)
	}
}

// checkExpired has the record looked up if its time is over; the database's
// clock decides, so one that still stands is looked at again.
func (m *Machine) checkExpired(s *Slot) {
	if !s.online || s.packed.ExpiresAt().IsZero() {
		return
	}
	if s.packed.ExpiresAt().Add(expiryGrace).After(m.now) {
		m.expire(s)
		return
	}
	m.out.LookUp(s.Key(), subscriber.ReasonExpired) // StillThere sets the next timer
}

// relookAfter is how long a record that the database keeps, although its time is
// over, is left before the next look. After a step of the clock that may be
// everybody's; a notice of the database tells sooner.
const relookAfter = 4 * time.Second

// StillThere sets the timer of an address whose record was looked up, and which the
// database keeps although its time is over. It is called only after the database was asked, so that a
// database that is away does not make the look-ups grow.
func (m *Machine) StillThere(inside netip.Addr, now time.Time) {
	s := m.slots.at(inside)
	if s != nil && s.online && !s.packed.ExpiresAt().IsZero() && s.packed.ExpiresAt().Before(now) {
		m.lookAt(inside, now.Add(relookAfter))
	}
}

// expire has the slot's address looked at when its record should be gone,
// which is mostly later than it is looked at anyway.
func (m *Machine) expire(s *Slot) {
	at, lookedAt := s.packed.ExpiresAt(), m.slots.lookedAt(s.Inside())
	if at.IsZero() || lookedAt == nil || *lookedAt != 0 && *lookedAt <= at.UnixNano() {
		return
	}
	if m.timers.expire(s.Inside(), at) {
		m.out.WakeTimers()
	}
	*lookedAt = at.UnixNano()
}

// lookAt has an address looked at when the time has come.
func (m *Machine) lookAt(inside netip.Addr, at time.Time) {
	if m.timers.look(inside, at) {
		m.out.WakeTimers()
	}
}

// HolderRecord makes a record of a binding's holder, for an address without one.
func HolderRecord(group string, h nat.Holder) subscriber.Record {
	return subscriber.Record{
		Key:       subscriber.Key{Group: group, Inside: h.Inside},
		SessionID: subscriber.SessionID{AcctSessionID: h.AcctSessionID},
		UserName:  h.UserName,
	}
}
