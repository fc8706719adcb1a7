package session

import (
	"container/heap"
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// expiryGrace is added to a record's expiry before it is looked at, and is the
// distance of further looks while the database, whose clock decides, keeps it.
const expiryGrace = 250 * time.Millisecond

// timers tell when a record should have expired. An Interim only moves the
// expiry further away, so it costs nothing here: the entry comes up too early
// and is put back.
type timers struct {
	mu    sync.Mutex
	due   dueHeap
	known map[netip.Addr]time.Time // the valid entry of each address
	wake  chan struct{}
}

type due struct {
	at     time.Time
	inside netip.Addr
}

func newTimers() *timers {
	return &timers{known: map[netip.Addr]time.Time{}, wake: make(chan struct{}, 1)}
}

// expire has the address looked at when its record should be gone.
func (t *timers) expire(inside netip.Addr, expiry time.Time) {
	if expiry.IsZero() {
		return
	}
	at := expiry.Add(expiryGrace)
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.known[inside]; ok && !at.Before(known) {
		return
	}
	t.known[inside] = at
	heap.Push(&t.due, due{at, inside})
	if t.due[0].inside == inside {
		t.wakeUp()
	}
}

// wakeUp has the task that waits for the timers look at them again.
func (t *timers) wakeUp() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// pop returns the addresses that are due.
func (t *timers) pop(now time.Time) []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	var addrs []netip.Addr
	for len(t.due) > 0 && !t.due[0].at.After(now) {
		d := heap.Pop(&t.due).(due)
		if t.known[d.inside] == d.at { // else it was replaced by an earlier one
			delete(t.known, d.inside)
			addrs = append(addrs, d.inside)
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
	return t.due[0].at, true
}

type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// runTimers ends holds and looks after records that should have expired.
func (m *Manager) runTimers(ctx context.Context) error {
	for {
		if err := m.waitTimers(ctx); err != nil {
			return err
		}
		now := m.now()
		m.endHolds(now)
		m.lookExpired(now, m.timers.pop(now))
	}
}

// waitTimers waits for the next hold or expiry to be due, or for news of one.
func (m *Manager) waitTimers(ctx context.Context) error {
	wait := time.Minute
	m.mu.Lock() // Next drops holds that are void
	hold, holding := m.engine.Next()
	m.mu.Unlock()
	now := m.now()
	if holding {
		wait = min(wait, hold.Sub(now))
	}
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
		if s := m.slots[b.Inside]; s != nil {
			m.stepLocked(s)
		}
	}
}

// lookExpired has the records looked up whose time is over; the database's
// clock decides, so those that still stand are looked at again.
func (m *Manager) lookExpired(now time.Time, addrs []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, inside := range addrs {
		s := m.slots[inside]
		if s == nil || !s.online || s.record.ExpiresAt.IsZero() {
			continue
		}
		if at := s.record.ExpiresAt; at.Add(expiryGrace).After(now) {
			m.timers.expire(inside, at)
			continue
		}
		m.missing.push(missing{s.record.Key, subscriber.ReasonExpired}) // lookAgain sets the next timer
	}
}
