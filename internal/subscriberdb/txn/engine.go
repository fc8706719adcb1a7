package txn

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// ErrConflict: other writers kept changing the data of a transaction.
var ErrConflict = errors.New("record kept changing under the update")

// maxAttempts bounds the decisions of a transaction after conflicts with other writers.
const maxAttempts = 16

// Options configure an Engine. All are required.
type Options struct {
	Client          *redisconn.Client // must have the scripts of this package, see Scripts
	FeedLimit       int64             // most entries of a feed
	TombstoneTTL    time.Duration     // time to live of tombstones
	Tombstones      int               // most tombstones with TombstoneTTL of a client that is alone
	TombstoneOctets int               // most memory of Redis for these, in octets
	NASLife         time.Duration     // time for which a silent NAS is kept
	CacheSize       int               // sessions in the cache, which saves reads
	Now             func() time.Time

	KnowsNAS  func(id subscriber.SessionID) bool                // reports whether the registry has the session's NAS
	Crowded   func(client string)                               // called when a client has no room for a tombstone with the full time to live
	Exhausted func(ctx context.Context, g *Group)               // called when the group's feed accepts no more entries
	Garbage   func(group string, kind codec.Garbage, at string) // called for unusable data in Redis
}

// An Engine runs transactions. Its methods may be called concurrently.
type Engine struct {
	o           Options
	tombstones  tombstoneBudget
	cache       *cache
	committer   committer
	generalOnly bool // all commits go through commitScript
}

// New returns an Engine.
func New(o Options) *Engine {
	e := &Engine{
		o: o, tombstones: newTombstones(o.TombstoneTTL, o.Tombstones, o.TombstoneOctets), cache: newCache(o.CacheSize),
	}
	e.committer.trip = e.execute
	return e
}

// Scripts returns the script that can commit every decision, and those that commit the
// common ones faster.
func Scripts() (general *redis.Script, fast []*redis.Script) {
	return commitScript, []*redis.Script{createScript, refreshScript, stopScript}
}

// UseGeneralScript makes all commits use the general script, so that tests can compare both
// ways. It is called before any transaction runs.
func (e *Engine) UseGeneralScript() { e.generalOnly = true }

// Run runs transactions that do not depend on each other until each has been committed or
// has failed; see Txn.Err. A transaction that has to wait for another needs another Run.
func (e *Engine) Run(ctx context.Context, txns []*Txn) {
	for range maxAttempts {
		out := make([]*Txn, 0, len(txns))
		for _, tx := range txns {
			if tx.prepare(e); tx.op != opNone {
				out = append(out, tx)
			}
		}
		if len(out) == 0 {
			return
		}
		e.committer.submit(ctx, out)
		txns = out[:0]
		for _, tx := range out {
			if !tx.conclude(e) {
				txns = append(txns, tx)
			}
		}
		if len(txns) == 0 {
			return
		}
	}
	for _, tx := range txns {
		tx.fail(ErrConflict)
	}
}

// WriteCall returns a call of the general script that writes an expiring string into a
// group, without conditions. It needs the same abilities of Redis as accounting.
func (e *Engine) WriteCall(ctx context.Context, g *Group, key, value string, ttl time.Duration) redis.Cmder {
	return redisconn.NewCall(ctx, commitScript, []string{g.Feed, g.Online, key},
		e.o.FeedLimit, false, 5, 0, "set", 3, value, ttl.Milliseconds())
}

// Restart returns the cached restart line of a session's NAS in a group; "" for none.
func (e *Engine) Restart(group string, id subscriber.SessionID) string {
	return e.cache.restart(group, id)
}

// SetRestart caches the restart line of a session's NAS in a group; the empty line is none.
func (e *Engine) SetRestart(group string, id subscriber.SessionID, line string) {
	e.cache.setRestart(group, id, line)
}
