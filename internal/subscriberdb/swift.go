package subscriberdb

import (
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// begins reports whether the decision is the Start of a session that nothing was
// known of, and no more than beginScript can write.
func (s *step) begins() bool {
	d, p := &s.decision, s.decision.Put
	return p != nil && d.Created && d.Session != nil && len(d.Delete) == 0 && d.Restart == nil &&
		s.remembers() && s.session.Phase == subscriber.Unknown && s.holder == nil && p.SessionID == s.id &&
		s.usesRestart && p.ExpiresAt.IsZero() && !p.Unconfirmed && plain(p) && p.Inside == s.inside &&
		p.UpdatedAt == p.StartedAt && !p.StartedAt.IsZero() && p.InputOctets == 0 && p.OutputOctets == 0 && *d.Session == startedState(p)
}

// startedState is the state of a session whose record an Acct-Start wrote.
func startedState(r *subscriber.Record) subscriber.SessionState {
	state := subscriber.OpenState(r)
	state.Exact = true
	return state
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
	args := make([]any, 0, 3+2+7+2*len(restarts)+9*len(b.steps))
	args = append(args, "evalsha", beginScript.Hash(), 2+len(restarts)+2*len(b.steps), b.group.feed, b.group.online)
	args = append(args, restarts...)
	for _, s := range b.steps {
		s.keySession()
		s.keyRecord()
		args = append(args, &s.sessionKey, &s.recordKey)
	}
	expires := db.expiryAfter(b.ttl)
	args = append(args, db.feedLength, len(restarts), b.ttl,
		db.stateTTL(time.Duration(b.ttl)*time.Millisecond, b.steps[0].decision.Session).Milliseconds(),
		b.addressAt(), appendExpiry(nil, expires), "")
	escaped := len(args) - 1
	args = append(args, lines...)
	for _, s := range b.steps {
		r := s.decision.Put
		r.ExpiresAt = expires
		for _, raw := range [...]*string{&r.UserName, &r.NAS, &r.Client, &r.AcctSessionID, &r.CallingStationID} {
			if word := escape(*raw); word == *raw && word != "-" {
				args = append(args, raw)
			} else {
				args[escaped] = "1"
				args = append(args, escapeDash(word))
			}
		}
		args = append(args, formatAddr(r.NASAddress), timeArg(&r.StartedAt))
	}
	return args
}

// expiryAfter is when Redis will forget a record that is written now and lives
// for so many milliseconds, 0 for ever.
func (db *DB) expiryAfter(ttl int64) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return db.now().Add(time.Duration(ttl) * time.Millisecond)
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
	expires := db.expiryAfter(b.ttl)
	for _, s := range b.steps {
		r := s.decision.Put
		r.ExpiresAt = expires
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
		args = append(args, &s.holder.Version, formatState(s.decision.Session), endText(&s.decision.Delete[0]))
	}
	return args
}

// restartsOf returns the restarts that the steps rest on, each once: keys, and
// lines.
func restartsOf(steps []*step) (keys, lines []any) {
	known := make([]*step, 0, 8)
	for _, s := range steps {
		if slices.ContainsFunc(known, s.sameRestart) {
			continue
		}
		s.keyRestart()
		known = append(known, s)
		keys, lines = append(keys, &s.restartKey), append(lines, &s.restart)
	}
	return keys, lines
}

// sameRestart reports whether both steps rest on the same line of the same NAS.
func (s *step) sameRestart(other *step) bool {
	return s.id.NAS == other.id.NAS && s.id.Client == other.id.Client && s.restart == other.restart
}
