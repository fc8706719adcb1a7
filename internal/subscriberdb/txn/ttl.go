package txn

import (
	"cmp"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/quota"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// recordTTL returns the time to live of a record: up to its ExpiresAt if that is set, else
// that of its client or group. A record without accounting, which nothing would refresh,
// and one whose removal is suspended do not expire by default.
func (e *Engine) recordTTL(g *Group, r *subscriber.Record) time.Duration {
	switch {
	case r.RemovalHeld != subscriber.ReasonNone && r.ExpiresAt.IsZero():
		return 0
	case !r.ExpiresAt.IsZero():
		return max(r.ExpiresAt.Sub(e.o.Now()), time.Millisecond)
	case r.SessionID == subscriber.SessionID{} && !r.Unconfirmed:
		return 0
	}
	return g.TTL(r.Client)
}

// restartTTL returns the time to live of a restart: as long as the NAS is kept, so that a
// repeated packet of it ends nothing. A client may invent NASes: the restart of one without
// room in the registry lives for as long as ending its sessions takes.
func (e *Engine) restartTTL(id subscriber.SessionID) time.Duration {
	if e.o.KnowsNAS(id) {
		return max(e.o.NASLife, e.o.TombstoneTTL)
	}
	return CrowdedTTL
}

// OpenTTL returns the time to live of an open session's state, from that of its record. The
// state outlives the record by the time of a tombstone, so that events after the expiry of
// the record are still put in order, and by restateAfter, because not every Interim
// rewrites it. 0 means that it does not expire.
func (e *Engine) OpenTTL(record time.Duration) time.Duration {
	if record == 0 {
		return 0
	}
	return 2*record + e.o.TombstoneTTL + e.restateAfter()
}

// stateNeedsRewrite reports whether this Interim must also rewrite the session state, which
// has to outlive the record: once in each restateAfter since the session began.
func (e *Engine) stateNeedsRewrite(r, next *subscriber.Record) bool {
	period := e.restateAfter()
	return r.UpdatedAt.Sub(r.StartedAt)/period != next.UpdatedAt.Sub(r.StartedAt)/period
}

// restateAfter returns the longest time for which the state of an open session is not
// rewritten.
func (e *Engine) restateAfter() time.Duration { return e.o.TombstoneTTL / 2 }

// closedTTL returns the time to live of the state of a session that has ended, has no
// address, or is one link more than its record keeps. A client can create any number of
// those, so they are bounded.
func (e *Engine) closedTTL(tx *Txn, id subscriber.SessionID, state *subscriber.SessionState) time.Duration {
	ttl, crowded := e.tombstones.ttl(id.Client, e.o.Now())
	if crowded {
		e.o.Crowded(cmp.Or(tx.Via, id.Client))
		return ttl
	}
	tx.tombstones = append(tx.tombstones, tombstone{id.Client, codec.StateOctets(tx.Group.Name, id, state.UserName)})
	return ttl
}

// expiryAfter returns the expiry of a record that is written now, for its time to live in
// milliseconds; 0 means never.
func (e *Engine) expiryAfter(ttl int64) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return e.o.Now().Add(time.Duration(ttl) * time.Millisecond)
}

// tombstone is a tombstone that a transaction writes, for tombstoneBudget.
type tombstone struct {
	client string
	octets int
}

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
