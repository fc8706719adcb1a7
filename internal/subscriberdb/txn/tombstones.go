package txn

import (
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/quota"
)

// CrowdedTTL is the time to live of a tombstone when there are too many: longer than
// retransmissions take.
const CrowdedTTL = 5 * time.Minute

// tombstoneBudget bounds the tombstones with the full time to live, in number and in
// octets: while a client has used up its share, its new tombstones live for CrowdedTTL. It
// counts the tombstones that this daemon wrote.
type tombstoneBudget struct {
	full time.Duration // time to live

	mu              sync.Mutex
	entries, octets quota.Shares    // of the tombstones with the full time to live
	since           time.Time       // start of the current half of full
	before, current map[string]load // by client, written in the half of full before since, and after since
}

// load is a number of tombstones, and the memory of Redis that they take.
type load struct{ entries, octets int }

func newTombstones(full time.Duration, limit, octets int) tombstoneBudget {
	return tombstoneBudget{full: full, entries: quota.Shares{Alone: limit}, octets: quota.Shares{Alone: octets}, current: make(map[string]load)}
}

// ttl returns the time to live of a new tombstone of a client, and whether it is short
// because the client has used up its share.
func (t *tombstoneBudget) ttl(client string, now time.Time) (ttl time.Duration, crowded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turnLocked(now)
	if !t.entries.Room(client) || !t.octets.Room(client) {
		return min(CrowdedTTL, t.full), true
	}
	return t.full, false
}

// wrote counts a tombstone with the full time to live.
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
