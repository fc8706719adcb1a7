package subscriberdb

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// begins reports whether the decision is the beginning of a session that
// nothing was known of, and no more than beginScript can write.
func (s *step) begins() bool {
	d, p := &s.decision, s.decision.Put
	return p != nil && d.Created && d.Session != nil && len(d.Delete) == 0 && d.Restart == nil &&
		s.remembers() && s.line == "" && s.holder == nil && p.Inside == s.inside && p.SessionID == s.id &&
		s.usesRestart && p.ExpiresAt.IsZero() && !p.Unconfirmed && plain(p)
}

// refreshes reports whether the decision changes no more than an Interim does,
// of a record that vouches for its session.
func (s *step) refreshes(db *DB) bool {
	d, own := &s.decision, s.holder
	return s.vouched && own != nil && d.Put != nil && !d.Created && len(d.Delete) == 0 &&
		d.Session != nil && *d.Session == s.session && own.RefreshedOnly(d.Put) &&
		s.usesRestart && !db.fading(own, d.Put)
}

// ends reports whether the decision is the Stop of a session whose record
// vouches for it.
func (s *step) ends() bool {
	d := &s.decision
	return s.vouched && s.holder != nil && d.Put == nil && d.Session != nil && d.Restart == nil &&
		len(d.Delete) == 1 && d.Delete[0].Tombstone == nil && d.Delete[0].Reason == subscriber.ReasonStop &&
		d.Delete[0].Record.Inside == s.inside && !s.usesRestart
}

// beginArgs returns the call of beginScript for the steps of a batch.
func beginArgs(db *DB, b *batch) []any {
	restarts, lines := restartsOf(b.steps)
	args := make([]any, 0, 3+2+5+2*len(restarts)+15*len(b.steps))
	args = append(args, "evalsha", beginScript.Hash(), 2+len(restarts)+2*len(b.steps), b.group.feed, b.group.online)
	args = append(args, restarts...)
	for _, s := range b.steps {
		s.keySession()
		s.keyRecord()
		args = append(args, &s.sessionKey, &s.recordKey)
	}
	first := b.steps[0]
	ttl := time.Duration(b.ttl) * time.Millisecond
	args = append(args, db.feedLength, len(restarts), b.ttl,
		db.stateTTL(ttl, first.decision.Session).Milliseconds(), b.addressAt())
	args = append(args, lines...)
	for _, s := range b.steps {
		r := s.decision.Put
		db.expireAfter(r, ttl)
		s.written = formatState(s.decision.Session)
		args = append(args, &s.written, witness(r), recordText(r), timeArg(&r.UpdatedAt),
			&r.InputOctets, &r.OutputOctets, &r.UserName, &r.NAS, &r.Client, &r.AcctSessionID,
			&r.CallingStationID, formatAddr(r.NASAddress), timeArg(&r.StartedAt))
	}
	return args
}

// expireAfter notes in the record when Redis will forget it.
func (db *DB) expireAfter(r *subscriber.Record, ttl time.Duration) {
	if ttl > 0 {
		r.ExpiresAt = db.now().Add(ttl)
	}
}

// addressAt is where the address begins in the key of a record, counted from 1.
func (b *batch) addressAt() int { return len(recordKeyPrefix(b.group.Name)) + 1 }

// refreshArgs returns the call of refreshScript for the steps of a batch.
func refreshArgs(db *DB, b *batch) []any {
	restarts, lines := restartsOf(b.steps)
	args := make([]any, 0, 3+1+4+2*len(restarts)+5*len(b.steps))
	args = append(args, "evalsha", refreshScript.Hash(), 1+len(restarts)+len(b.steps), b.group.feed)
	args = append(args, restarts...)
	for _, s := range b.steps {
		s.keyRecord()
		args = append(args, &s.recordKey)
	}
	args = append(args, db.feedLength, len(restarts), b.ttl, b.addressAt())
	args = append(args, lines...)
	for _, s := range b.steps {
		r := s.decision.Put
		db.expireAfter(r, time.Duration(b.ttl)*time.Millisecond)
		args = append(args, &s.holder.Version, timeArg(&r.UpdatedAt), &r.InputOctets, &r.OutputOctets)
	}
	return args
}

// endArgs returns the call of endScript for the steps of a batch.
func endArgs(db *DB, b *batch) []any {
	args := make([]any, 0, 3+2+3+5*len(b.steps))
	args = append(args, "evalsha", endScript.Hash(), 2+2*len(b.steps), b.group.feed, b.group.online)
	for _, s := range b.steps {
		s.keySession()
		s.keyRecord()
		args = append(args, &s.sessionKey, &s.recordKey)
	}
	args = append(args, db.feedLength, db.tombstones.ttl(db.now()).Milliseconds(), b.addressAt())
	db.tombstones.add(db.now(), len(b.steps))
	for _, s := range b.steps {
		s.written = formatState(s.decision.Session)
		args = append(args, &s.holder.Version, &s.written, recordText(&s.decision.Delete[0].Record))
	}
	return args
}

// restartsOf returns the restarts that the steps rest on, each once if its steps
// follow each other: keys, and lines.
func restartsOf(steps []*step) (keys, lines []any) {
	for i, s := range steps {
		if i > 0 && steps[i-1].id.NAS == s.id.NAS && steps[i-1].id.Client == s.id.Client && steps[i-1].restart == s.restart {
			continue
		}
		s.keyRestart()
		keys, lines = append(keys, &s.restartKey), append(lines, &s.restart)
	}
	return keys, lines
}
