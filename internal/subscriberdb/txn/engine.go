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

// ErrConflict: somebody else kept changing the data of a transaction.
var ErrConflict = errors.New("record kept changing under the update")

// maxAttempts bounds how often a transaction is decided again because somebody else
// was faster.
const maxAttempts = 16

// Options configure an Engine. All are required.
type Options struct {
	Client          *redisconn.Client // that knows the scripts of this package, see Scripts
	FeedLimit       int64             // entries that a feed may grow to
	TombstoneTTL    time.Duration     // how long an ended session is remembered
	Tombstones      int               // ended sessions of one client that is alone, remembered for so long
	TombstoneOctets int               // memory of Redis that these may take
	NASLife         time.Duration     // how long a NAS that is not heard of is known
	CacheSize       int               // sessions whose last state is kept to save a read
	Now             func() time.Time

	KnowsNAS  func(id subscriber.SessionID) bool                // the session's NAS is among those that are known
	Crowded   func(client string)                               // a session is remembered for minutes only, for want of room
	Exhausted func(ctx context.Context, g *Group)               // the group's feed takes no entry any more
	Garbage   func(group string, kind codec.Garbage, at string) // data in Redis cannot be used
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

// Scripts returns the script that can commit every decision, and those that commit the usual
// ones faster.
func Scripts() (general *redis.Script, fast []*redis.Script) {
	return commitScript, []*redis.Script{createScript, refreshScript, stopScript}
}

// UseGeneralScript has all commits go through the general script, so that both ways can be
// compared. It is called before any transaction runs.
func (e *Engine) UseGeneralScript() { e.generalOnly = true }

// Run runs transactions, independent of each other, until each is done or has
// failed; see Txn.Err. Those that must wait for another belong to another Run.
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
// group, under no condition, as accounting would be written.
func (e *Engine) WriteCall(ctx context.Context, g *Group, key, value string, ttl time.Duration) redis.Cmder {
	return redisconn.NewCall(ctx, commitScript, []string{g.Feed, g.Online, key},
		e.o.FeedLimit, false, 5, 0, "set", 3, value, ttl.Milliseconds())
}

// Restart returns the restart line of a session's NAS in a group, as far as is known; "" for
// none.
func (e *Engine) Restart(group string, id subscriber.SessionID) string {
	return e.cache.restart(group, id)
}

// SetRestart keeps the restart line of a session's NAS in a group; the empty line is none.
func (e *Engine) SetRestart(group string, id subscriber.SessionID, line string) {
	e.cache.setRestart(group, id, line)
}
