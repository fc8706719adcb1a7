package lifecycle

import (
	"container/heap"
	"math"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
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
		m.timers.look(inside, now.Add(relookAfter))
	}
}

// expire sets the timer of the slot's address for the expiry of its record.
// Mostly an earlier one is set already, and suffices.
func (m *Machine) expire(s *Slot) {
	at, lookedAt := s.packed.ExpiresAt(), m.slots.lookedAt(s.packed.Inside())
	if at.IsZero() || lookedAt == nil || *lookedAt != 0 && *lookedAt <= at.UnixNano() {
		return
	}
	m.timers.expire(s.packed.Inside(), at)
	*lookedAt = at.UnixNano()
}

// expiryGrace is added to a record's expiry before it is looked up, because the
// database's clock decides.
const expiryGrace = 250 * time.Millisecond

// timers have the times at which records should have expired, and grace times
// end. An Interim only delays the expiry, so it costs nothing here: the entry
// is due too early, and is put back. An address has one entry, for its earliest
// time.
type timers struct {
	due   dueHeap
	known map[[4]byte]int64 // due time of the valid entry of each address
	wake  func()            // called when an entry is due before all others
}

// due is an entry. There is one for every subscriber, so it is small.
type due struct {
	at     int64 // nanoseconds since 1970
	inside [4]byte
}

func newTimers(wake func()) timers { return timers{known: map[[4]byte]int64{}, wake: wake} }

// expire sets the timer of the address for its record's expiry.
func (t *timers) expire(inside netip.Addr, expiry time.Time) {
	if !expiry.IsZero() {
		t.look(inside, expiry.Add(expiryGrace))
	}
}

// Farthest is the latest time that an entry can hold, in the year 2262.
var Farthest = time.Unix(0, math.MaxInt64)

// look sets the timer of the address. It ignores records at addresses that are
// not IPv4, and those that live for centuries, as a person may have written them.
func (t *timers) look(inside netip.Addr, at time.Time) {
	if !inside.Is4() || at.After(Farthest) {
		return
	}
	entry := due{at.UnixNano(), inside.As4()}
	if known, ok := t.known[entry.inside]; ok && entry.at >= known {
		return
	}
	t.known[entry.inside] = entry.at
	heap.Push(&t.due, entry)
	if t.due[0] == entry {
		t.wake()
	}
}

// pop removes and returns the addresses that are due.
func (t *timers) pop(now time.Time) []netip.Addr {
	var addrs []netip.Addr
	for len(t.due) > 0 && t.due[0].at <= now.UnixNano() {
		d := heap.Pop(&t.due).(due)
		if t.known[d.inside] == d.at { // else it was replaced by an earlier one
			delete(t.known, d.inside)
			addrs = append(addrs, netip.AddrFrom4(d.inside))
		}
	}
	return addrs
}

// next returns the earliest due time.
func (t *timers) next() (time.Time, bool) {
	if len(t.due) == 0 {
		return time.Time{}, false
	}
	return time.Unix(0, t.due[0].at), true
}

type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
