package subscriberdb

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

// callSteps bounds the steps of one script call: a call answers at once or not
// at all, and keeps Redis from others meanwhile.
const callSteps = 64

// roundTrip is one round trip with the errands of many steps. The room of one that is
// over is used again: there are many, and what they take would soon be garbage.
type roundTrip struct {
	e       *txnEngine
	cmds    []redis.Cmder
	looks   []*reads
	batches []*batch // behind its length are those of an earlier trip
	open    []*batch // those of batches that still take steps
}

// reads is the reads of one step.
type reads struct {
	step             *step
	session, restart *redis.StringCmd
	holder, current  *redis.MapStringStringCmd
}

// batch is the steps of one script call.
type batch struct {
	group  *Group
	kind   operation
	ttl    int64             // of the records that begin or are refreshed, or of the states of sessions that end
	reason subscriber.Reason // of the records that are removed
	frees  bool              // of a commit: each step does
	steps  []*step
	octets int     // of what the feed tells of them, at most
	bases  []*step // one step for each restart that any of them rests on
	args   codec.ArgBuffer
	cmd    *redis.Cmd
}

var trips = sync.Pool{New: func() any { return new(roundTrip) }}

// tripRoom bounds the commands of a trip whose room is kept: nobody needs the memory
// of a flood for ever.
const tripRoom = 512

// execute does what the steps want of Redis, and leaves the answers in them.
func (e *txnEngine) execute(ctx context.Context, steps []*step) {
	t := trips.Get().(*roundTrip)
	defer t.free()
	t.e = e
	for _, s := range steps {
		if s.errand == look {
			t.look(ctx, s)
		} else {
			t.addToBatch(s)
		}
	}
	for _, b := range t.batches {
		b.write(e)
		b.cmd = redis.NewCmd(ctx, b.args.List...)
		t.cmds = append(t.cmds, b.cmd)
	}
	err := e.client.Exchange(ctx, t.cmds)
	for _, l := range t.looks {
		l.take(e, err)
	}
	var failed error
	for _, b := range t.batches {
		if err := b.take(err); err != nil {
			failed = err
			if lastEntryReached(err) {
				e.renewFeed(ctx, b.group)
			}
		}
	}
	if failed != nil {
		e.client.WriteFailed(failed)
	}
}

// free gives the trip's room back.
func (t *roundTrip) free() {
	if len(t.cmds) > tripRoom {
		return
	}
	for _, b := range t.batches {
		b.args.Reset()
		clear(b.steps)
		clear(b.bases)
		b.steps, b.bases, b.cmd = b.steps[:0], b.bases[:0], nil
	}
	clear(t.cmds)
	clear(t.looks)
	t.e, t.cmds, t.looks, t.batches, t.open = nil, t.cmds[:0], t.looks[:0], t.batches[:0], t.open[:0]
	trips.Put(t)
}

// look reads what the step's decision rests on, the records first: see
// guess.vouched. The restart of the NAS is read only after a surprise: the cache
// knows it, and the commit compares.
func (t *roundTrip) look(ctx context.Context, s *step) {
	l := &reads{step: s}
	if s.inside.IsValid() {
		l.holder = redis.NewMapStringStringCmd(ctx, "hgetall", s.keyRecord())
		t.cmds = append(t.cmds, l.holder)
	}
	if s.asked.IsValid() {
		l.current = redis.NewMapStringStringCmd(ctx, "hgetall", codec.RecordKey(s.group.Name, s.asked))
		t.cmds = append(t.cmds, l.current)
	}
	if s.remembers() {
		l.session = redis.NewStringCmd(ctx, "get", s.keySession())
		t.cmds = append(t.cmds, l.session)
	}
	if s.usesRestart && s.surprised {
		l.restart = redis.NewStringCmd(ctx, "get", s.keyRestart())
		t.cmds = append(t.cmds, l.restart)
	}
	t.looks = append(t.looks, l)
}

// take hands the answers to the step.
func (l *reads) take(e *txnEngine, failed error) {
	s := l.step
	var err error
	read := func(cmd *redis.StringCmd, into *string, kind Garbage, key string) {
		if cmd == nil {
			return
		}
		*into = cmd.Val()
		if redisconn.IsWrongType(cmd.Err()) { // as if there were none: a commit replaces it
			e.garbage.found(s.group.Name, kind, key)
			return
		}
		err = errors.Join(err, redisconn.Answered(cmd, failed))
	}
	readRecord := func(cmd *redis.MapStringStringCmd, key subscriber.Key) *subscriber.Record {
		if cmd == nil {
			return nil
		}
		if redisconn.IsWrongType(cmd.Err()) {
			e.garbage.foundRecord(key)
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
	read(l.session, &s.line, GarbageSession, s.sessionKey)
	read(l.restart, &s.restart, GarbageRestart, s.restartKey)
	s.holder = readRecord(l.holder, subscriber.Key{Group: s.group.Name, Inside: s.inside})
	s.current = readRecord(l.current, subscriber.Key{Group: s.group.Name, Inside: s.asked})
	s.err = err
}

// addToBatch puts a commit into a batch of its group.
func (t *roundTrip) addToBatch(s *step) {
	ttl := int64(0)
	switch s.errand {
	case refresh, begin:
		ttl = t.e.recordTTL(s.group, s.decision.Put).Milliseconds()
	case end, drop:
		s.last = s.lastState(t.e)
		ttl = t.e.closedTTL(s, s.subject(), s.last).Milliseconds()
	}
	octets := s.feedOctets()
	reason := subscriber.ReasonNone
	if s.errand == drop {
		reason = s.decision.Delete[0].Reason
	}
	frees := s.errand == commit && s.frees()
	for i, b := range t.open {
		if b.group != s.group || b.kind != s.errand || b.ttl != ttl || b.reason != reason || b.frees != frees {
			continue
		}
		if b.full(s, octets) {
			t.open[i] = t.newBatch(s, ttl, reason, frees)
		}
		t.open[i].add(s, octets)
		return
	}
	b := t.newBatch(s, ttl, reason, frees)
	b.add(s, octets)
	t.open = append(t.open, b)
}

func (t *roundTrip) newBatch(s *step, ttl int64, reason subscriber.Reason, frees bool) *batch {
	n := len(t.batches)
	if n < cap(t.batches) && t.batches[:n+1][n] != nil {
		t.batches = t.batches[:n+1]
	} else {
		t.batches = append(t.batches, new(batch))
	}
	b := t.batches[n]
	b.group, b.kind, b.ttl, b.reason, b.frees, b.octets = s.group, s.errand, ttl, reason, frees, 0
	return b
}

func (b *batch) add(s *step, octets int) {
	b.steps = append(b.steps, s)
	b.octets += octets
}

// feedEntryOctets bounds what one call writes into the feed: a line of 64 records with the
// longest attributes would be 229 kB, which is as long as a reader, and Redis, would be
// kept by one entry.
const feedEntryOctets = 64 << 10

// feedOctets is what the feed tells of the step, at most. Of what has no free text it is
// nothing worth counting.
func (s *step) feedOctets() int {
	r := s.decision.Put
	if s.errand != begin || r == nil {
		return 0
	}
	raw := len(r.UserName) + len(r.NAS) + len(r.Client) + len(r.AcctSessionID) + len(r.CallingStationID) + len(r.Class)
	return beganOctets + 3*raw // each octet may be three, see escape
}

// beganOctets is a line of a begun session without free text.
const beganOctets = 160

// frees reports whether the step ends records, or the restart of a NAS is to, and begins
// none: that is carried out by a Redis that is full, too.
func (s *step) frees() bool {
	d := &s.decision
	return d.Put == nil && (len(d.Delete) > 0 || d.Restart != nil)
}

// full reports whether the step must go into another call: all scripts but
// commitScript compare before they write, so they must not meet a record or a
// session twice.
func (b *batch) full(s *step, octets int) bool {
	if len(b.steps) == callSteps || b.octets+octets > feedEntryOctets {
		return true
	}
	if b.kind == commit {
		return false
	}
	for _, other := range b.steps {
		if other.inside == s.inside || s.remembers() && other.id.AcctSessionID == s.id.AcctSessionID && other.id == s.id {
			return true
		}
	}
	return false
}

// write makes the arguments of the call.
func (b *batch) write(e *txnEngine) {
	switch b.kind {
	case begin:
		b.writeBegin(e)
	case refresh:
		b.writeRefresh(e)
	case end, drop:
		b.writeEnd(e)
	default:
		b.args.Add(commitArgs(e, b)...)
	}
}

// take hands the answers to the steps. It returns why there are none.
func (b *batch) take(failed error) error {
	err := redisconn.Answered(b.cmd, failed)
	answers, _ := b.cmd.Val().([]any)
	switch {
	case err != nil:
	case b.kind != commit && len(answers) > 0:
		b.takeTogether(answers)
		return nil
	case b.kind == commit && len(answers) == len(b.steps):
		b.takeEach(answers)
		return nil
	default:
		err = fmt.Errorf("script answered %v", b.cmd.Val())
	}
	for _, s := range b.steps {
		s.err = err
	}
	return err
}

// takeTogether takes one feed entry for all, and who was refused.
func (b *batch) takeTogether(answers []any) {
	id, _ := answers[0].(string)
	for _, s := range b.steps {
		s.feedID = id
	}
	for _, refused := range answers[1:] {
		if i, _ := refused.(int64); i > 0 && int(i) <= len(b.steps) {
			b.steps[i-1].refused = true
		} else {
			for _, s := range b.steps {
				s.refused = true
			}
		}
	}
}

func (b *batch) takeEach(answers []any) {
	for i, s := range b.steps {
		id, done := answers[i].(string)
		s.feedID, s.refused = id, !done
	}
}
