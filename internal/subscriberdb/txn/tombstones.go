package txn

import (
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/quota"
)

// crowdedTTL is how long a session that ended is remembered when there are too
// many: longer than retransmissions take.
const CrowdedTTL = 5 * time.Minute

// tombstoneBudget bounds how many ended sessions are remembered, in number and octets besides
// time: while a client has its share of those that live for the full time, new ones of it
// live for CrowdedTTL. It counts those that this daemon wrote.
type tombstoneBudget struct {
	full time.Duration // time to live

	mu              sync.Mutex
	entries, octets quota.Shares    // of those that live for the full time
	since           time.Time       // when current began
	before, current map[string]load // by client, written in the half of full before since, and after
}

// load is a number of tombstones, and the memory of Redis that they take.
type load struct{ entries, octets int }

func newTombstones(full time.Duration, limit, octets int) tombstoneBudget {
	return tombstoneBudget{full: full, entries: quota.Shares{Alone: limit}, octets: quota.Shares{Alone: octets}, current: make(map[string]load)}
}

// ttl returns how long a tombstone that is to be written now for a client should live, and
// whether that is for want of room.
func (t *tombstoneBudget) ttl(client string, now time.Time) (ttl time.Duration, crowded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turnLocked(now)
	if !t.entries.Room(client) || !t.octets.Room(client) {
		return min(CrowdedTTL, t.full), true
	}
	return t.full, false
}

// wrote counts a tombstone of so many octets that is to live for the full time.
func (t *tombstoneBudget) wrote(client string, octets int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turnLocked(now)
	t.entries.Add(client, 1)
	t.octets.Add(client, octets)
	l := t.current[client]
	t.current[client] = load{l.entries + 1, l.octets + octets}
}

func (t *tombstoneBudget) turnLocked(now time.Time) {
	for t.since.Add(t.full/2).Before(now) && t.entries.Total() > 0 {
		for client, l := range t.before {
			t.entries.Add(client, -l.entries)
			t.octets.Add(client, -l.octets)
		}
		t.before, t.current = t.current, make(map[string]load)
		t.since = t.since.Add(t.full / 2)
	}
	if t.entries.Total() == 0 {
		t.since = now
	}
}
