package subscriberdb

import (
	"sync"
	"time"
)

// crowdedTTL is how long a session that ended is remembered when there are too
// many: longer than retransmissions take.
const crowdedTTL = 5 * time.Minute

// tombstones bounds how many ended sessions are remembered, in number besides
// time: while more than limit were written within the time to live, new ones
// live for crowdedTTL. It counts what this daemon wrote.
type tombstones struct {
	full  time.Duration // time to live
	limit int

	mu              sync.Mutex
	since           time.Time // when current began
	before, current int       // written in the half of full before since, and after
}

// ttl returns how long a tombstone that is written now should live.
func (t *tombstones) ttl(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turnLocked(now)
	if t.before+t.current >= t.limit {
		return min(crowdedTTL, t.full)
	}
	return t.full
}

// add counts tombstones that live for the full time.
func (t *tombstones) add(now time.Time, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turnLocked(now)
	if t.before+t.current < t.limit {
		t.current += n
	}
}

func (t *tombstones) turnLocked(now time.Time) {
	for t.since.Add(t.full/2).Before(now) && t.before+t.current > 0 {
		t.before, t.current = t.current, 0
		t.since = t.since.Add(t.full / 2)
	}
	if t.before+t.current == 0 {
		t.since = now
	}
}
