package txn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	return commitScript.Plain(), []*redis.Script{createScript, refreshScript, stopScript.Plain()}
}

// RecordedScripts returns the scripts that commit decisions with audit entries.
func RecordedScripts() []*redis.Script {
	return []*redis.Script{commitScript.Recorded(), stopScript.Recorded()}
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
	return redisconn.NewCall(ctx, commitScript.Plain(), []string{g.Feed, g.Online, key},
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

// Group commit.

// Bounds on the work for Redis at once.
const (
	MaxTrips  = 2    // trips at once; while the answers to one are processed Redis executes the other
	tripLimit = 4096 // most transactions of a trip for several callers
	// tripTime bounds a trip for several callers, which is not ended by any caller's
	// context.
	tripTime = 5 * time.Second
)

// committer sends the transactions of all callers to Redis: group commit. While trips are
// under way, new transactions wait, and then share one trip. It has no goroutine of its
// own; one of the callers commits for the others.
type committer struct {
	trip func(ctx context.Context, txns []*Txn)

	mu      sync.Mutex
	running int
	waiting []*submission
}

// submission is the transactions of one caller.
type submission struct {
	txns []*Txn
	wake chan []*submission // gets the submissions to commit, this one first; nil once another caller committed this one
}

// submit sends the transactions to Redis, and returns when they have its answers.
func (c *committer) submit(ctx context.Context, txns []*Txn) {
	c.mu.Lock()
	if c.running < MaxTrips {
		c.running++
		c.mu.Unlock()
		c.trip(ctx, txns)
		c.end()
		return
	}
	p := &submission{txns: txns, wake: make(chan []*submission, 1)}
	c.waiting = append(c.waiting, p)
	c.mu.Unlock()
	if group := <-p.wake; group != nil {
		c.commitAll(ctx, group)
	}
}

// commitAll runs one trip for several callers.
func (c *committer) commitAll(ctx context.Context, group []*submission) {
	if len(group) == 1 {
		c.trip(ctx, group[0].txns)
		c.end()
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tripTime)
	defer cancel()
	var all []*Txn
	for _, p := range group {
		all = append(all, p.txns...)
	}
	c.trip(ctx, all)
	c.end()
	for _, p := range group[1:] {
		p.wake <- nil
	}
}

// end ends a trip: the first waiting submission commits for the others.
func (c *committer) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.running--
		return
	}
	n, size := 0, 0
	for n < len(c.waiting) && (n == 0 || size+len(c.waiting[n].txns) <= tripLimit) {
		size += len(c.waiting[n].txns)
		n++
	}
	group := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	group[0].wake <- group
}

// Round trips.

// roundTrip is one pipeline for many transactions: their reads, and one script call for
// each group and kind of commit. It is pooled to spare the garbage collector.
type roundTrip struct {
	e       *Engine
	cmds    []redis.Cmder
	reads   []*reads
	batches []*batch // batches of an earlier trip are kept between length and capacity
	open    []*batch // the batches that still have room
	whole   bool     // its batches are committed with audit entries
}

// reads holds the read commands of one transaction.
type reads struct {
	tx               *Txn
	session, restart *redis.StringCmd
	holder, current  *redis.MapStringStringCmd
}

var trips = sync.Pool{New: func() any { return new(roundTrip) }}

// tripRoom bounds the commands of a trip that is pooled, so that a flood of events does not
// occupy its memory for ever.
const tripRoom = 512

// execute runs the operations of the transactions in one round trip, and stores the answers
// in them.
func (e *Engine) execute(ctx context.Context, txns []*Txn) {
	t := trips.Get().(*roundTrip)
	defer t.free()
	t.e = e
	for _, tx := range txns {
		if tx.op == opRead {
			t.read(ctx, tx)
		} else {
			t.addToBatch(tx)
		}
	}
	for _, b := range t.batches {
		b.write(e)
		b.cmd = redis.NewCmd(ctx, b.args.List...)
		t.cmds = append(t.cmds, b.cmd)
	}
	err := e.o.Client.Exchange(ctx, t.cmds)
	for _, l := range t.reads {
		l.deliver(e, err)
	}
	var failed error
	for _, b := range t.batches {
		if err := b.deliver(err); err != nil {
			failed = err
			if isExhausted(err) {
				e.o.Exhausted(ctx, b.group)
			}
		}
	}
	if failed != nil {
		e.o.Client.WriteFailed(failed)
	}
}

// write builds the call of the batch's script.
func (b *batch) write(e *Engine) {
	switch b.op {
	case opCreate:
		b.writeCreate(e)
	case opRefresh:
		b.writeRefresh(e)
	case opStop, opRemove:
		b.writeStop(e)
	default:
		b.args.List = append(b.args.List, commitArgs(e, b)...)
	}
}

// addToBatch adds a commit to a batch of its kind.
func (t *roundTrip) addToBatch(tx *Txn) {
	kind, octets := batchKind{group: tx.Group, op: tx.op, whole: t.whole}, 0
	switch tx.op {
	case opCreate:
		kind.ttl = t.e.recordTTL(tx.Group, tx.Decision.Put).Milliseconds()
		octets = beganOctets(tx.Decision.Put)
	case opRefresh:
		kind.ttl = t.e.recordTTL(tx.Group, tx.Decision.Put).Milliseconds()
	case opStop, opRemove:
		tx.last = tx.Decision.Session
		if tx.op == opRemove {
			tx.last, kind.reason = tx.removedState(t.e), tx.Decision.Delete[0].Reason
		}
		kind.ttl = t.e.closedTTL(tx, tx.subject(), tx.last).Milliseconds()
	case opCommit:
		kind.frees = tx.frees()
	}
	open := slices.IndexFunc(t.open, func(b *batch) bool { return b.batchKind == kind })
	if open < 0 || t.open[open].full(tx, octets) {
		n := len(t.batches)
		t.batches = slices.Grow(t.batches, 1)[:n+1]
		if t.batches[n] == nil {
			t.batches[n] = new(batch)
		}
		t.batches[n].batchKind, t.batches[n].octets = kind, 0
		if open < 0 {
			open, t.open = len(t.open), append(t.open, nil)
		}
		t.open[open] = t.batches[n]
	}
	b := t.open[open]
	b.txns = append(b.txns, tx)
	b.octets += octets
}

// read adds the commands that read the read set, the records first: see
// readSet.versionCoversState. The restart of the NAS is read only after a conflict: the
// cache has it, and the commit compares.
func (t *roundTrip) read(ctx context.Context, tx *Txn) {
	l := &reads{tx: tx}
	if tx.Inside.IsValid() {
		l.holder = redis.NewMapStringStringCmd(ctx, "hgetall", tx.keyRecord())
		t.cmds = append(t.cmds, l.holder)
	}
	if tx.asked.IsValid() {
		l.current = redis.NewMapStringStringCmd(ctx, "hgetall", codec.RecordKey(tx.Group.Name, tx.asked))
		t.cmds = append(t.cmds, l.current)
	}
	if tx.remembers() {
		l.session = redis.NewStringCmd(ctx, "get", tx.keySession())
		t.cmds = append(t.cmds, l.session)
	}
	if tx.usesRestart && tx.Conflicted {
		l.restart = redis.NewStringCmd(ctx, "get", tx.keyRestart())
		t.cmds = append(t.cmds, l.restart)
	}
	t.reads = append(t.reads, l)
}

// deliver stores the answers in the transaction.
func (l *reads) deliver(e *Engine, failed error) {
	tx := l.tx
	var err error
	read := func(cmd *redis.StringCmd, into *string, kind codec.Garbage, key string) {
		if cmd == nil {
			return
		}
		*into = cmd.Val()
		if redisconn.IsWrongType(cmd.Err()) { // treated as absent: a commit replaces it
			e.o.Garbage(tx.Group.Name, kind, key)
			return
		}
		err = errors.Join(err, redisconn.Answered(cmd, failed))
	}
	readRecord := func(cmd *redis.MapStringStringCmd, key subscriber.Key) *subscriber.Record {
		if cmd == nil {
			return nil
		}
		if redisconn.IsWrongType(cmd.Err()) {
			e.o.Garbage(key.Group, codec.GarbageRecord, codec.RecordKey(key.Group, key.Inside))
			err = errors.Join(err, fmt.Errorf("key %s: %w", codec.RecordKey(key.Group, key.Inside), cmd.Err()))
			return nil
		}
		err = errors.Join(err, redisconn.Answered(cmd, failed))
		fields := cmd.Val()
		if len(fields) == 0 {
			return nil
		}
		r := codec.ParseRecord(key, fields)
		return &r
	}
	read(l.session, &tx.line, codec.GarbageSession, tx.sessionKey)
	read(l.restart, &tx.restart, codec.GarbageRestart, tx.restartKey)
	tx.holder = readRecord(l.holder, subscriber.Key{Group: tx.Group.Name, Inside: tx.Inside})
	tx.current = readRecord(l.current, subscriber.Key{Group: tx.Group.Name, Inside: tx.asked})
	tx.Err = err
}

// free returns the trip to the pool.
func (t *roundTrip) free() {
	if len(t.cmds) > tripRoom {
		return
	}
	for _, b := range t.batches {
		b.args.Reset()
		clear(b.txns)
		clear(b.bases)
		b.txns, b.bases, b.cmd = b.txns[:0], b.bases[:0], nil
	}
	clear(t.cmds)
	clear(t.reads)
	t.e, t.whole, t.cmds, t.reads, t.batches, t.open = nil, false, t.cmds[:0], t.reads[:0], t.batches[:0], t.open[:0]
	trips.Put(t)
}

// Script calls, each for many transactions.

// BatchSize bounds the transactions of one script call: Redis serves no other client during
// a call, and a call succeeds or fails as a whole.
const BatchSize = 64

// FeedEntryOctets bounds the feed entry of one call: the lines of 64 records with the
// longest attributes would be 229 kB, and would block a reader, and Redis, for too long.
const FeedEntryOctets = 64 << 10

// batch holds the transactions of one script call.
type batch struct {
	batchKind
	txns   []*Txn
	octets int    // upper bound of their lines in the feed
	bases  []*Txn // one transaction for each restart that the batch's decisions depend on
	args   codec.ArgBuffer
	cmd    *redis.Cmd
}

// batchKind is the part that all transactions of a script call have in common.
type batchKind struct {
	group  *Group
	op     operation
	ttl    int64             // of the records that begin or are refreshed, or of the states of sessions that end; in milliseconds
	reason subscriber.Reason // of the records that are removed
	frees  bool              // of a commit: it frees memory
	whole  bool              // it is committed with an audit entry, all or none
}

// beganOctets returns an upper bound of the line of a new session in the feed, in octets.
// Lines without free text are too short to count.
func beganOctets(r *subscriber.Record) int {
	raw := len(r.UserName) + len(r.NAS) + len(r.Client) + len(r.AcctSessionID) + len(r.CallingStationID) + len(r.Class)
	return 160 + 3*raw // an escaped octet takes three, see codec.Escape
}

// frees reports whether the transaction ends records, or stores the restart of a NAS that
// is to end some, and creates none. A Redis without free memory executes it too.
func (tx *Txn) frees() bool {
	d := &tx.Decision
	return d.Put == nil && (len(d.Delete) > 0 || d.Restart != nil)
}

// full reports whether the transaction must go into another call: all scripts but
// commitScript compare before they write, so a call of theirs must not have a record or a
// session twice.
func (b *batch) full(tx *Txn, octets int) bool {
	if len(b.txns) == BatchSize || b.octets+octets > FeedEntryOctets {
		return true
	}
	if b.op == opCommit {
		return false
	}
	for _, other := range b.txns {
		if other.Inside == tx.Inside || tx.remembers() && other.Hash == tx.Hash && other.Session == tx.Session {
			return true
		}
	}
	return false
}

// deliver gives the answers to the transactions, or returns the error of the call. The
// general script answers for each of them. The others answer with the feed entry of all, and
// with the numbers of those that they refused, from 1; 0 refuses all.
func (b *batch) deliver(failed error) error {
	err := redisconn.Answered(b.cmd, failed)
	if err == nil {
		err = b.accept(b.cmd.Val())
	}
	if err != nil {
		for _, tx := range b.txns {
			tx.Err = err
		}
	}
	return err
}

// accept gives the answer of the script to the transactions.
func (b *batch) accept(answer any) error {
	answers, _ := answer.([]any)
	if len(answers) == 0 || b.op == opCommit && len(answers) != len(b.txns) {
		return fmt.Errorf("script answered %v", answer)
	}
	if b.op == opCommit {
		for i, tx := range b.txns {
			id, done := answers[i].(string)
			tx.feedID, tx.refused = id, !done
		}
		return nil
	}
	id, _ := answers[0].(string)
	for _, tx := range b.txns {
		tx.feedID = id
	}
	for _, refused := range answers[1:] {
		if i, _ := refused.(int64); i > 0 && int(i) <= len(b.txns) {
			b.txns[i-1].refused = true
			continue
		}
		for _, tx := range b.txns {
			tx.refused = true
		}
	}
	return nil
}

// isExhausted reports whether the feed accepts no more entries: another program added one
// with the highest possible identifier, and Redis adds none below the last.
func isExhausted(err error) bool {
	return err != nil && strings.Contains(err.Error(), "exhausted the last possible ID")
}
