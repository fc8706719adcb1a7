package subscriberdb

import (
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// begins reports whether the decision is the Start of a session that nothing was
// known of, and no more than beginScript can write. Where that was guessed wrong once,
// there may be a key that it would not write over.
func (s *step) begins() bool {
	d, p := &s.decision, s.decision.Put
	return p != nil && !s.surprised && d.Created && d.Session != nil && len(d.Delete) == 0 && d.Restart == nil &&
		s.remembers() && s.session.Phase == subscriber.Unknown && s.holder == nil && p.SessionID == s.id &&
		s.usesRestart && p.ExpiresAt.IsZero() && !p.Unconfirmed && codec.IsPlain(p) && p.Inside == s.inside &&
		p.UpdatedAt == p.StartedAt && !p.StartedAt.IsZero() && p.InputOctets == 0 && p.OutputOctets == 0 && *d.Session == startedState(p, d.Session)
}

// startedState is the state of a session whose record an Acct-Start wrote.
func startedState(r *subscriber.Record, as *subscriber.SessionState) subscriber.SessionState {
	state := subscriber.OpenState(r)
	state.Exact, state.Stamp, state.Digest = true, as.Stamp, as.Digest
	return state
}

// refreshes reports whether the decision changes no more than an Interim does,
// of a record that vouches for its session.
func (s *step) refreshes(e *txnEngine) bool {
	d, own := &s.decision, s.holder
	return s.vouched && own != nil && d.Put != nil && !d.Created && len(d.Delete) == 0 &&
		d.Session != nil && *d.Session == s.session && own.RefreshedOnly(d.Put) &&
		s.usesRestart && !e.stateNeedsRewrite(own, d.Put)
}

// ends reports whether the decision is the Stop of a session whose record
// vouches for it.
func (s *step) ends() bool {
	d := &s.decision
	return s.vouched && s.holder != nil && d.Put == nil && d.Session != nil && d.Restart == nil &&
		len(d.Delete) == 1 && d.Delete[0].Tombstone == nil && d.Delete[0].Reason == subscriber.ReasonStop &&
		d.Delete[0].Record.Inside == s.inside && !s.usesRestart
}

// drops reports whether the decision is no more than the end of the record at the
// step's address: what a NAS restart, or a person, ends.
func (s *step) drops() bool {
	d := &s.decision
	return !s.remembers() && s.holder != nil && s.holder.Version != codec.Unversioned &&
		d.Put == nil && d.Session == nil && d.Restart == nil &&
		len(d.Delete) == 1 && d.Delete[0].Cause == 0 && d.Delete[0].Record.Inside == s.inside
}

// writeBegin makes the call of beginScript.
func (b *batch) writeBegin(e *txnEngine) {
	a := &b.args
	b.findBases()
	a.Add("evalsha", beginScript.Hash(), 2+len(b.bases)+2*len(b.steps), b.group.feed, b.group.online)
	b.addRestartKeys()
	b.addSessionsAndRecords()
	expires := e.expiryAfter(b.ttl)
	a.Add(e.feedLimit, len(b.bases), b.ttl,
		e.openTTL(time.Duration(b.ttl)*time.Millisecond).Milliseconds(), b.addressAt())
	a.Text = codec.AppendExpiry(a.Text, expires)
	a.Cut()
	escaped, classes := len(a.List), slices.ContainsFunc(b.steps, (*step).putsClass)
	a.Add("", beginWords)
	if classes {
		a.List[escaped+1] = beginWords + 1
	}
	b.addRestarts()
	for _, s := range b.steps {
		r := s.decision.Put
		r.ExpiresAt = expires
		for _, raw := range [...]*string{&r.UserName, &r.NAS, &r.Client, &r.AcctSessionID, &r.CallingStationID} {
			if a.AddWord(raw) {
				a.List[escaped] = "1"
			}
		}
		a.List = append(a.List, codec.FormatAddr(r.NASAddress), codec.TimeArg(&r.StartedAt))
		a.Text = codec.AppendStart(a.Text, s.decision.Session)
		a.Cut()
		if classes {
			a.AddWord(&r.Class) // the script looks for itself
		}
	}
}

// beginWords are the words that beginScript takes of each session; one more where any
// of them has a Class.
const beginWords = 8

// putsClass reports whether the step's record has a Class.
func (s *step) putsClass() bool { return s.decision.Put.Class != "" }

// expiryAfter is when Redis will forget a record that is written now and lives
// for so many milliseconds, 0 for ever.
func (e *txnEngine) expiryAfter(ttl int64) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return e.now().Add(time.Duration(ttl) * time.Millisecond)
}

// addressAt is where the address begins in the key of a record, counted from 1.
func (b *batch) addressAt() int { return len(codec.RecordKeyPrefix(b.group.Name)) + 1 }

// writeRefresh makes the call of refreshScript.
func (b *batch) writeRefresh(e *txnEngine) {
	a := &b.args
	b.findBases()
	a.Add("evalsha", refreshScript.Hash(), 1+len(b.bases)+len(b.steps), b.group.feed)
	b.addRestartKeys()
	for _, s := range b.steps {
		a.Text = codec.AppendRecordKey(a.Text, b.group.Name, s.inside)
		a.Cut()
	}
	a.Add(e.feedLimit, len(b.bases), b.ttl, b.addressAt())
	b.addRestarts()
	expires := e.expiryAfter(b.ttl)
	for _, s := range b.steps {
		r := s.decision.Put
		r.ExpiresAt = expires
		a.List = append(a.List, &s.holder.Version, codec.TimeArg(&r.UpdatedAt), &r.InputOctets, &r.OutputOctets)
	}
}

// writeEnd makes the call of endScript.
func (b *batch) writeEnd(e *txnEngine) {
	a := &b.args
	a.Add("evalsha", endScript.Hash(), 2+2*len(b.steps), b.group.feed, b.group.online)
	b.addSessionsAndRecords()
	reason := ""
	if b.kind == drop {
		reason = b.reason.String()
	}
	a.Add(e.feedLimit, b.ttl, b.addressAt(), reason)
	for _, s := range b.steps {
		a.List = append(a.List, &s.holder.Version)
		a.Text = codec.AppendState(a.Text, s.last)
		a.Cut()
		a.Text = codec.AppendEnd(a.Text, &s.decision.Delete[0])
		a.Cut()
	}
}

// lastState is what is remembered of the session that the step ends.
func (s *step) lastState(e *txnEngine) *subscriber.SessionState {
	if s.errand != drop {
		return s.decision.Session
	}
	ended := &s.decision.Delete[0]
	if ended.Tombstone != nil {
		return ended.Tombstone
	}
	r := &ended.Record
	return &subscriber.SessionState{
		Phase: subscriber.Closed, Reason: ended.Reason, Inside: r.Inside,
		Start: r.StartedAt, End: e.now().UTC(), UserName: r.UserName,
	}
}

// subject is the session that the step is about.
func (s *step) subject() subscriber.SessionID {
	if s.errand == drop {
		return sessionOrAddress(&s.decision.Delete[0].Record)
	}
	return s.id
}

// sessionOrAddress is what the end of a record is remembered under: its session, or of
// a record that was put by hand its address.
func sessionOrAddress(r *subscriber.Record) subscriber.SessionID {
	if r.SessionID == (subscriber.SessionID{}) {
		return subscriber.SessionID{Leg: r.Inside}
	}
	return r.SessionID
}

// addSessionsAndRecords adds, for each step, the keys of its session's state and of
// its record.
func (b *batch) addSessionsAndRecords() {
	a := &b.args
	for _, s := range b.steps {
		a.Text = codec.AppendSessionKey(a.Text, b.group.Name, s.subject())
		a.Cut()
		a.Text = codec.AppendRecordKey(a.Text, b.group.Name, s.inside)
		a.Cut()
	}
}

// findBases finds a step for each restart that the steps rest on.
func (b *batch) findBases() {
	for _, s := range b.steps {
		if !slices.ContainsFunc(b.bases, s.sameRestart) {
			b.bases = append(b.bases, s)
		}
	}
}

// addRestartKeys adds the keys of the restarts that the steps rest on.
func (b *batch) addRestartKeys() {
	for _, s := range b.bases {
		s.keyRestart()
		b.args.List = append(b.args.List, &s.restartKey)
	}
}

// addRestarts adds those restarts, as they are known.
func (b *batch) addRestarts() {
	for _, s := range b.bases {
		b.args.List = append(b.args.List, &s.restart)
	}
}

// sameRestart reports whether both steps rest on the same line of the same NAS.
func (s *step) sameRestart(other *step) bool {
	return s.id.NAS == other.id.NAS && s.id.Client == other.id.Client && s.restart == other.restart
}
