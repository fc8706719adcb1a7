package txn

import (
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// creates reports whether createScript can write the decision: the Start of an unknown
// session, without rare fields. After a conflict it returns false, because there may be a
// key that the script would not overwrite.
func (tx *Txn) creates() bool {
	d, p := &tx.Decision, tx.Decision.Put
	return p != nil && !tx.conflicted && d.Created && d.Session != nil && len(d.Delete) == 0 && d.Restart == nil &&
		tx.remembers() && tx.session.Phase == subscriber.Unknown && tx.holder == nil && p.SessionID == tx.Session &&
		tx.usesRestart && p.ExpiresAt.IsZero() && !p.Unconfirmed && codec.IsPlain(p) && p.Inside == tx.Inside &&
		p.UpdatedAt == p.StartedAt && !p.StartedAt.IsZero() && p.InputOctets == 0 && p.OutputOctets == 0 && *d.Session == startedState(p, d.Session)
}

// startedState returns the state of a session whose record an Acct-Start wrote.
func startedState(r *subscriber.Record, as *subscriber.SessionState) subscriber.SessionState {
	state := subscriber.OpenState(r)
	state.Exact, state.Stamp, state.Digest = true, as.Stamp, as.Digest
	return state
}

// refreshes reports whether the decision writes only the fields that an Interim changes, to
// a record whose version covers the session's state.
func (tx *Txn) refreshes(e *Engine) bool {
	d, own := &tx.Decision, tx.holder
	return tx.versionCoversState && own != nil && d.Put != nil && !d.Created && len(d.Delete) == 0 &&
		d.Session != nil && *d.Session == tx.session && own.RefreshedOnly(d.Put) &&
		tx.usesRestart && !e.stateNeedsRewrite(own, d.Put)
}

// stops reports whether the decision is the Stop of a session whose state is covered by the
// version of its record.
func (tx *Txn) stops() bool {
	d := &tx.Decision
	return tx.versionCoversState && tx.holder != nil && d.Put == nil && d.Session != nil && d.Restart == nil &&
		len(d.Delete) == 1 && d.Delete[0].Tombstone == nil && d.Delete[0].Reason == subscriber.ReasonStop &&
		d.Delete[0].Record.Inside == tx.Inside && !tx.usesRestart
}

// removes reports whether the decision only ends the record at the transaction's address,
// for a NAS restart or an operator.
func (tx *Txn) removes() bool {
	d := &tx.Decision
	return !tx.remembers() && tx.holder != nil && tx.holder.Version != codec.Unversioned &&
		d.Put == nil && d.Session == nil && d.Restart == nil &&
		len(d.Delete) == 1 && d.Delete[0].Cause == 0 && d.Delete[0].Record.Inside == tx.Inside
}

// writeCreate builds the call of createScript.
func (b *batch) writeCreate(e *Engine) {
	a := &b.args
	b.findBases()
	a.Add("evalsha", createScript.Hash(), 2+len(b.bases)+2*len(b.txns), b.group.Feed, b.group.Online)
	b.addRestartKeys()
	b.addSessionsAndRecords()
	expires := e.expiryAfter(b.ttl)
	a.Add(e.o.FeedLimit, len(b.bases), b.ttl,
		e.OpenTTL(time.Duration(b.ttl)*time.Millisecond).Milliseconds(), b.addressAt())
	a.Text = codec.AppendExpiry(a.Text, expires)
	a.Cut()
	escaped, classes := len(a.List), slices.ContainsFunc(b.txns, (*Txn).putsClass)
	a.Add("", createWords)
	if classes {
		a.List[escaped+1] = createWords + 1
	}
	b.addRestarts()
	for _, tx := range b.txns {
		r := tx.Decision.Put
		r.ExpiresAt = expires
		for _, raw := range [...]*string{&r.UserName, &r.NAS, &r.Client, &r.AcctSessionID, &r.CallingStationID} {
			if a.AddWord(raw) {
				a.List[escaped] = "1"
			}
		}
		a.List = append(a.List, codec.FormatAddr(r.NASAddress), codec.TimeArg(&r.StartedAt))
		a.Text = codec.AppendStart(a.Text, tx.Decision.Session)
		a.Cut()
		if classes {
			a.AddWord(&r.Class) // the script checks by itself whether it is escaped
		}
	}
}

// createWords is the number of arguments that createScript takes for each session; one more
// if any of them has a Class.
const createWords = 8

// putsClass reports whether the transaction's record has a Class.
func (tx *Txn) putsClass() bool { return tx.Decision.Put.Class != "" }

// addressAt returns the position of the address in the key of a record, counted from 1.
func (b *batch) addressAt() int { return len(codec.RecordKeyPrefix(b.group.Name)) + 1 }

// writeRefresh builds the call of refreshScript.
func (b *batch) writeRefresh(e *Engine) {
	a := &b.args
	b.findBases()
	a.Add("evalsha", refreshScript.Hash(), 1+len(b.bases)+len(b.txns), b.group.Feed)
	b.addRestartKeys()
	for _, tx := range b.txns {
		a.Text = codec.AppendRecordKey(a.Text, b.group.Name, tx.Inside)
		a.Cut()
	}
	a.Add(e.o.FeedLimit, len(b.bases), b.ttl, b.addressAt())
	b.addRestarts()
	expires := e.expiryAfter(b.ttl)
	for _, tx := range b.txns {
		r := tx.Decision.Put
		r.ExpiresAt = expires
		a.List = append(a.List, &tx.holder.Version, codec.TimeArg(&r.UpdatedAt), &r.InputOctets, &r.OutputOctets)
	}
}

// writeStop builds the call of stopScript.
func (b *batch) writeStop(e *Engine) {
	a := &b.args
	a.Add("evalsha", stopScript.Hash(), 2+2*len(b.txns), b.group.Feed, b.group.Online)
	b.addSessionsAndRecords()
	reason := ""
	if b.kind == opRemove {
		reason = b.reason.String()
	}
	a.Add(e.o.FeedLimit, b.ttl, b.addressAt(), reason)
	for _, tx := range b.txns {
		a.List = append(a.List, &tx.holder.Version)
		a.Text = codec.AppendState(a.Text, tx.last)
		a.Cut()
		a.Text = codec.AppendEnd(a.Text, &tx.Decision.Delete[0])
		a.Cut()
	}
}

// lastState returns the new state of the session that the transaction ends.
func (tx *Txn) lastState(e *Engine) *subscriber.SessionState {
	if tx.op != opRemove {
		return tx.Decision.Session
	}
	ended := &tx.Decision.Delete[0]
	if ended.Tombstone != nil {
		return ended.Tombstone
	}
	r := &ended.Record
	return &subscriber.SessionState{
		Phase: subscriber.Closed, Reason: ended.Reason, Inside: r.Inside,
		Start: r.StartedAt, End: e.o.Now().UTC(), UserName: r.UserName,
	}
}

// subject returns the session that the transaction is about.
func (tx *Txn) subject() subscriber.SessionID {
	if tx.op == opRemove {
		return RememberedAs(&tx.Decision.Delete[0].Record)
	}
	return tx.Session
}

// RememberedAs returns the identity of a record's tombstone: its session or, for a record
// without one that an operator wrote, its address.
func RememberedAs(r *subscriber.Record) subscriber.SessionID {
	if r.SessionID == (subscriber.SessionID{}) {
		return subscriber.SessionID{Leg: r.Inside}
	}
	return r.SessionID
}

// addSessionsAndRecords adds, for each transaction, the keys of its session's state and of
// its record.
func (b *batch) addSessionsAndRecords() {
	a := &b.args
	for _, tx := range b.txns {
		a.Text = codec.AppendSessionKey(a.Text, b.group.Name, tx.subject())
		a.Cut()
		a.Text = codec.AppendRecordKey(a.Text, b.group.Name, tx.Inside)
		a.Cut()
	}
}

// findBases finds one transaction for each restart that the decisions depend on.
func (b *batch) findBases() {
	for _, tx := range b.txns {
		if !slices.ContainsFunc(b.bases, tx.sameRestart) {
			b.bases = append(b.bases, tx)
		}
	}
}

// addRestartKeys adds the keys of the restarts that the decisions depend on.
func (b *batch) addRestartKeys() {
	for _, tx := range b.bases {
		tx.keyRestart()
		b.args.List = append(b.args.List, &tx.restartKey)
	}
}

// addRestarts adds the expected values of those restarts.
func (b *batch) addRestarts() {
	for _, tx := range b.bases {
		b.args.List = append(b.args.List, &tx.restart)
	}
}

// sameRestart reports whether both decisions depend on the same restart line of the same
// NAS.
func (tx *Txn) sameRestart(other *Txn) bool {
	return tx.Session.NAS == other.Session.NAS && tx.Session.Client == other.Session.Client && tx.restart == other.restart
}
