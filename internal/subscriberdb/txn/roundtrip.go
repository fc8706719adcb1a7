package txn

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// roundTrip is one pipeline for many transactions: their reads, and one script call for
// each group and kind of commit. It is pooled to spare the garbage collector.
type roundTrip struct {
	e       *Engine
	cmds    []redis.Cmder
	reads   []*reads
	batches []*batch // batches of an earlier trip are kept between length and capacity
	open    []*batch // the batches that still have room
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
	t.e, t.cmds, t.reads, t.batches, t.open = nil, t.cmds[:0], t.reads[:0], t.batches[:0], t.open[:0]
	trips.Put(t)
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
	if tx.usesRestart && tx.conflicted {
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

// addToBatch adds a commit to a batch of its group.
func (t *roundTrip) addToBatch(tx *Txn) {
	ttl := int64(0)
	switch tx.op {
	case opRefresh, opCreate:
		ttl = t.e.recordTTL(tx.Group, tx.Decision.Put).Milliseconds()
	case opStop, opRemove:
		tx.last = tx.lastState(t.e)
		ttl = t.e.closedTTL(tx, tx.subject(), tx.last).Milliseconds()
	}
	octets := tx.feedOctets()
	reason := subscriber.ReasonNone
	if tx.op == opRemove {
		reason = tx.Decision.Delete[0].Reason
	}
	frees := tx.op == opCommit && tx.frees()
	for i, b := range t.open {
		if b.group != tx.Group || b.kind != tx.op || b.ttl != ttl || b.reason != reason || b.frees != frees {
			continue
		}
		if b.full(tx, octets) {
			t.open[i] = t.newBatch(tx, ttl, reason, frees)
		}
		t.open[i].add(tx, octets)
		return
	}
	b := t.newBatch(tx, ttl, reason, frees)
	b.add(tx, octets)
	t.open = append(t.open, b)
}

func (t *roundTrip) newBatch(tx *Txn, ttl int64, reason subscriber.Reason, frees bool) *batch {
	n := len(t.batches)
	if n < cap(t.batches) && t.batches[:n+1][n] != nil {
		t.batches = t.batches[:n+1]
	} else {
		t.batches = append(t.batches, new(batch))
	}
	b := t.batches[n]
	b.group, b.kind, b.ttl, b.reason, b.frees, b.octets = tx.Group, tx.op, ttl, reason, frees, 0
	return b
}
