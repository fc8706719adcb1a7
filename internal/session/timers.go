package session

import (
	"container/heap"
	"context"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// expiryGrace is added to a record's expiry before it is looked at, and is the
// distance of further looks while the database, whose clock decides, keeps it.
const expiryGrace = 250 * time.Millisecond

// timers tell when a record should have expired, or a grace time is over. An
// Interim only moves the expiry further away, so it costs nothing here: the entry
// comes up too early and is put back. An address has one entry, for what comes first.
type timers struct {
	mu    sync.Mutex
	due   dueHeap
	known map[[4]byte]int64 // when the valid entry of each address is due
	wake  chan struct{}
}

// due is an entry. There is one for every subscriber, so it is small.
type due struct {
	at     int64 // nanoseconds since 1970
	inside [4]byte
}

func newTimers() *timers {
	return &timers{known: map[[4]byte]int64{}, wake: make(chan struct{}, 1)}
}

// expire has the address looked at when its record should be gone.
func (t *timers) expire(inside netip.Addr, expiry time.Time) {
	if expiry.IsZero() {
		return
	}
	t.look(inside, expiry.Add(expiryGrace))
}

// farthest is the latest time that an entry can tell, in the year 2262.
var farthest = time.Unix(0, math.MaxInt64)

// look has the address looked at when the time has come. A record that somebody
// wrote at an address that is not IPv4, or to live for centuries, is not waited for.
func (t *timers) look(inside netip.Addr, at time.Time) {
	if !inside.Is4() || at.After(farthest) {
		return
	}
	entry := due{at.UnixNano(), inside.As4()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.known[entry.inside]; ok && entry.at >= known {
		return
	}
	t.known[entry.inside] = entry.at
	heap.Push(&t.due, entry)
	if t.due[0] == entry {
		t.wakeUp()
	}
}

// wakeUp has the task that waits for the timers look at them again.
func (t *timers) wakeUp() { signal(t.wake) }

// pop returns the addresses that are due.
func (t *timers) pop(now time.Time) []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
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

// next is when the earliest address is due.
func (t *timers) next() (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
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

// timersEvery is how often the timers are looked at when many are due one after the
// other, as the holds of a busy time are.
const timersEvery = 10 * time.Millisecond

// runTimers ends holds and grace times, and looks after records that should have
// expired.
func (m *Manager) runTimers(ctx context.Context) error {
	for {
		if err := m.waitTimers(ctx); err != nil {
			return err
		}
		now := m.now()
		m.endHolds(now)
		m.lookDue(now, m.timers.pop(now))
		if err := clock.Sleep(ctx, timersEvery); err != nil {
			return err
		}
	}
}

// waitTimers waits for the next hold, grace time or expiry to be due, or for news of one.
func (m *Manager) waitTimers(ctx context.Context) error {
	now := m.now()
	wait := m.waitHolds(now).Sub(now)
	if at, ok := m.timers.next(); ok {
		wait = min(wait, at.Sub(now))
	}
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-m.timers.wake:
	}
	return nil
}

// waitHolds says when the holds are to be looked at next. Who begins one that is over
// before wakes the timers.
func (m *Manager) waitHolds(now time.Time) time.Time {
	m.mu.Lock() // Next drops holds that are void
	defer m.mu.Unlock()
	m.holdsSeen = now.Add(time.Minute)
	if hold, ok := m.engine.Next(); ok && hold.Before(m.holdsSeen) {
		m.holdsSeen = hold
	}
	return m.holdsSeen
}

// endHolds frees blocks whose quarantine is over, and serves who waits for one.
func (m *Manager) endHolds(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	freed, served := m.engine.Advance(now, nil, nil)
	for _, b := range freed {
		m.saveLocked(save{binding: b, remove: true})
		m.publishReleasedLocked(b)
	}
	for _, b := range served {
		if s := m.slots.at(b.Inside); s != nil {
			m.stepLocked(s)
		}
	}
}

// expireLocked has the slot's address looked at when its record should be gone,
// which is mostly later than it is looked at anyway.
func (m *Manager) expireLocked(s *slot) {
	at, lookedAt := s.packed.ExpiresAt(), m.slots.lookedAt(s.inside())
	if at.IsZero() || lookedAt == nil || *lookedAt != 0 && *lookedAt <= at.UnixNano() {
		return
	}
	m.timers.expire(s.inside(), at)
	*lookedAt = at.UnixNano()
}

// lookDue looks at addresses of which something may be over.
func (m *Manager) lookDue(now time.Time, addrs []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, inside := range addrs {
		if lookedAt := m.slots.lookedAt(inside); lookedAt != nil {
			*lookedAt = 0
		}
		s := m.slots.at(inside)
		if s != nil {
			m.lookExpiredLocked(s, now)
			m.lookGraceLocked(s, now)
		}
		if s = m.slots.at(inside); s == nil || !m.inGraceLocked(s) {
			m.graces.remove(inside)
		}
	}
}

// lookExpiredLocked has the record looked up if its time is over; the database's
// clock decides, so one that still stands is looked at again.
func (m *Manager) lookExpiredLocked(s *slot, now time.Time) {
	if !s.online || s.packed.ExpiresAt().IsZero() {
		return
	}
	if s.packed.ExpiresAt().Add(expiryGrace).After(now) {
		m.expireLocked(s)
		return
	}
	m.missing.push(missing{s.key(), subscriber.ReasonExpired}) // lookAgain sets the next timer
}
