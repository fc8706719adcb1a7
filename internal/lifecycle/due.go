package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// NextDue returns the next time at which [Machine.Tick] has work, at most a
// minute from now. Effects.WakeTimers reports when that becomes earlier.
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

// Tick does the work that is due: it frees blocks whose hold is over, serves
// subscribers that wait for a block, ends grace times, and requests look-ups of
// records that should have expired.
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

// checkDue checks the expiry and the grace time of an address.
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

// checkExpired requests a look-up of the record if it should have expired. The
// database's clock decides, so a record that still stands is looked up again.
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

// relookAfter is the interval between look-ups of a record that the database
// keeps although it should have expired. After a step of the clock that may
// concern all records; a notice of the database is faster.
const relookAfter = 4 * time.Second

// StillThere sets the timer of an address whose record was looked up, and which
// the database keeps although it should have expired. It is called only after
// the database was asked, so that an outage of the database does not multiply
// the look-ups.
func (m *Machine) StillThere(inside netip.Addr, now time.Time) {
	s := m.slots.at(inside)
	if s != nil && s.online && !s.packed.ExpiresAt().IsZero() && s.packed.ExpiresAt().Before(now) {
		m.lookAt(inside, now.Add(relookAfter))
	}
}

// expire sets the timer of the slot's address for the expiry of its record.
// Mostly an earlier one is set already, and suffices.
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

// lookAt sets the timer of an address.
func (m *Machine) lookAt(inside netip.Addr, at time.Time) {
	if m.timers.look(inside, at) {
		m.out.WakeTimers()
	}
}

// HolderRecord returns a record with the data of a binding's holder, for an
// address without a record.
func HolderRecord(group string, h nat.Holder) subscriber.Record {
	return subscriber.Record{
		Key:       subscriber.Key{Group: group, Inside: h.Inside},
		SessionID: subscriber.SessionID{AcctSessionID: h.AcctSessionID},
		UserName:  h.UserName,
	}
}
