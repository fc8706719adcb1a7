package session

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// refusedMost bounds the subscribers whose refusals are remembered: 10,000 to 20,000, a few MB.
const refusedMost = 20_000

// refusedFor is the time for which a refusal is remembered.
const refusedFor = 24 * time.Hour

// refusalMemory remembers when subscribers were last refused sessions, by limit. It forgets the
// half that has not been refused any for longest when it is full.
type refusalMemory struct {
	mu         sync.Mutex // a leaf
	most       int
	young, old map[netip.Addr]refusalTimes
}

// refusalTimes are the last refusals at one address, by limit.
type refusalTimes map[string]time.Time

func newRefusalMemory(most int) *refusalMemory {
	return &refusalMemory{most: most, young: map[netip.Addr]refusalTimes{}}
}

// note remembers a refusal.
func (m *refusalMemory) note(inside netip.Addr, limit string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	times := m.young[inside]
	if times == nil {
		if len(m.young) >= m.most/2 {
			m.young, m.old = map[netip.Addr]refusalTimes{}, m.young
		}
		if times = m.old[inside]; times == nil {
			times = refusalTimes{}
		}
		delete(m.old, inside)
		m.young[inside] = times
	}
	times[limit] = at
}

// of returns the last refusals at an address, by limit, from a time on.
func (m *refusalMemory) of(inside netip.Addr, since time.Time) refusalTimes {
	m.mu.Lock()
	defer m.mu.Unlock()
	times := m.young[inside]
	if times == nil {
		times = m.old[inside]
	}
	times = maps.Clone(times)
	maps.DeleteFunc(times, func(_ string, at time.Time) bool { return at.Before(since) })
	return times
}
