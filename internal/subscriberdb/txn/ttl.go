package txn

import (
	"cmp"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// recordTTL is how long the record lives without news: as long as it says, or
// the time of its client or group; a record by hand has no accounting that would
// refresh it, and one whose removal is held waits for a decision, unless it says
// for how long.
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

// restartTTL is how long a restart is remembered: as long as the NAS, so that a packet of
// it that comes again ends nothing. A client may invent NASes: one that there is no room for
// is remembered for as long as its sessions take to be ended.
func (e *Engine) restartTTL(id subscriber.SessionID) time.Duration {
	if e.o.KnowsNAS(id) {
		return max(e.o.NASLife, e.o.TombstoneTTL)
	}
	return CrowdedTTL
}

// OpenTTL lets the state of an open session outlive its record by the time of a
// tombstone, so that events after the expiry of the record are still put in
// order. Not every Interim writes it again, so it gets some more. 0 is for ever.
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

// restateAfter is how long the state of an open session may stand unchanged
// until an Interim writes it again.
func (e *Engine) restateAfter() time.Duration { return e.o.TombstoneTTL / 2 }

// closedTTL is how long the state of a session lives that has ended, has no address, or is one
// link more than its record keeps: those a client may make as many of as it likes, so they are bounded.
func (e *Engine) closedTTL(tx *Txn, id subscriber.SessionID, state *subscriber.SessionState) time.Duration {
	ttl, crowded := e.tombstones.ttl(id.Client, e.o.Now())
	if crowded {
		e.o.Crowded(cmp.Or(tx.Via, id.Client))
		return ttl
	}
	tx.tombstones = append(tx.tombstones, tombstone{id.Client, codec.StateOctets(tx.Group.Name, id, state.UserName)})
	return ttl
}

// expiryAfter is when Redis will forget a record that is written now and lives
// for so many milliseconds, 0 for ever.
func (e *Engine) expiryAfter(ttl int64) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return e.o.Now().Add(time.Duration(ttl) * time.Millisecond)
}

// tombstone is one that a transaction is to write.
type tombstone struct {
	client string
	octets int
}
