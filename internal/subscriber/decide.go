package subscriber

import (
	"net/netip"
	"time"
)

// Decision is the effect of one event in one group. The writes belong together:
// all of them happen or none, deletions before the record that is put.
type Decision struct {
	Verdict Verdict
	Delete  []Ending      // records that end
	Put     *Record       // the record to write; its Version and ExpiresAt are the database's
	Created bool          // Put is announced as Created, not Updated
	Session *SessionState // state to remember of the event's session
	Restart *Restart      // restart of the event's NAS to remember; its ID is the database's
}

// Ending is a record that is deleted, as it was last known.
type Ending struct {
	Record Record
	Reason Reason
	Cause  uint32 // Acct-Terminate-Cause of a Stop (RFC 2866 section 5.10); 0 when absent
	// Tombstone is the state to remember of the record's session, if that is not
	// the event's session. The database fills in its known Stamp and Digest.
	Tombstone *SessionState
}

// Writes reports whether the decision changes anything.
func (d *Decision) Writes() bool {
	return len(d.Delete) > 0 || d.Put != nil || d.Session != nil || d.Restart != nil
}

// decider carries out the step of an event, and writes the records and states of it.
type decider struct{ addressClaim }

// Decide returns the effect of an accounting event on the data in the view. It
// is pure, and deciding an event twice is harmless.
func Decide(v View, ev Event) Decision {
	if ev.Kind == EventAccountingOn || ev.Kind == EventAccountingOff {
		return decideRestart(v.Restart, ev)
	}
	var s decider
	s.view, s.ev, s.session = v, ev, v.Session
	if s.ignoresService() {
		return s.ignoreService(ev.Service)
	}
	s.classify()
	s.claim()
	step := sessionRules[v.Scope][s.relation][ev.Kind-EventStart]
	if s.outOfBounds(step) {
		return Decision{Verdict: ForeignAddress}
	}
	d := s.follow(step)
	if d.Verdict == Opened && ev.Full {
		return Decision{Verdict: ClientFull}
	}
	return d
}

// follow carries out a step.
func (s *decider) follow(step Step) Decision {
	switch step {
	case StepBegin:
		return s.begin()
	case StepRefresh:
		return s.refresh()
	case StepClose:
		return s.close()
	case StepNote:
		return s.note()
	case StepLeave:
		return s.leave()
	case StepIgnore:
		return Decision{Verdict: ignored[s.relation]}
	}
	return Decision{Verdict: NotHere}
}

// outOfBounds reports whether the client may not report the event's address. A
// session that was online there before the client was bound goes on, and may
// end.
func (s *decider) outOfBounds(step Step) bool {
	switch {
	case !s.ev.ForeignInside || step == StepNothing:
		return false
	case s.own == nil:
		return true
	case step == StepRefresh:
		return s.moved()
	}
	return step != StepClose
}

// decideRestart accepts a restart that is newer than the known one. A restart
// within the jitter of event times, or with the same stamp, is the same one
// sent again (SES-15): its stamp may read differently if the NAS has set its
// clock since. A clock without a battery shows the same time after every start,
// so it tells nothing. The same octets are the same packet, however late: a
// replay (SES-15).
func decideRestart(known Restart, ev Event) Decision {
	if ev.arrange(); ev.Astray() != 0 {
		ev.Stamp = time.Time{}
	}
	switch {
	case ev.Restarts == RestartsIgnored:
		return Decision{Verdict: RestartIgnored}
	case !known.At.IsZero() && !ev.At.After(known.At.Add(jitter)), !known.Stamp.IsZero() && known.Stamp.Equal(ev.Stamp),
		known.told(ev.Digest):
		return Decision{Verdict: RestartRepeated}
	}
	return Decision{Verdict: Restarted, Restart: &Restart{
		At: ev.At, Confirm: ev.Restarts == RestartsConfirmed, Stamp: ev.Stamp, Packets: known.packets(ev.Digest),
	}}
}

func (s *decider) begin() Decision {
	if !s.placed() {
		d := Decision{Verdict: Noted, Session: s.open()}
		s.end(&d)
		return d
	}
	return s.grantAddress()
}

func (s *decider) refresh() Decision {
	switch {
	case s.own != nil && !s.moved():
		r := s.merged()
		return Decision{Verdict: Refreshed, Put: &r, Session: s.open()}
	case s.placed():
		return s.grantAddress()
	}
	return Decision{Verdict: Refreshed, Session: s.open()}
}

// grantAddress gives the session the event's address, if the rule for its owner grants
// that.
func (s *decider) grantAddress() Decision {
	rule := addressRules[s.owner]
	if !rule.grant {
		return Decision{Verdict: rule.verdict}
	}
	r := s.record()
	d := Decision{Verdict: rule.verdict, Put: &r, Created: rule.announce, Session: s.open()}
	if s.own != nil {
		s.end(&d)
		d.Created = rule.announce || s.own == s.view.Holder // else a record is there already
		d.Verdict = s.replaced()
	}
	if rule.evict {
		d.Delete = append(d.Delete, s.evicted())
		d.Verdict = TookOver
	}
	return d
}

// replaced is the verdict of a session that had an address and gets another.
func (s *decider) replaced() Verdict {
	if s.relation == RelationSame {
		return Moved
	}
	return TookOver
}

// end deletes the session's own record, because the session begins anew or is
// at another address.
func (s *decider) end(d *Decision) {
	if s.own != nil {
		d.Delete = append(d.Delete, Ending{Record: *s.own, Reason: ReasonSuperseded})
	}
}

// evicted ends the holder's session at the start of the session that takes its
// address.
func (s *decider) evicted() Ending {
	e := NewEnding(*s.view.Holder, ReasonSuperseded, s.start)
	if e.Tombstone != nil {
		e.Tombstone.Doubtful = s.doubtful
	}
	return e
}

func (s *decider) close() Decision {
	d := s.note()
	switch {
	case s.own == nil:
	case len(s.own.Links) > 1:
		r := s.merged().without(s.ev.AcctSessionID)
		d.Verdict, d.Put = Unlinked, &r
	default:
		d.Verdict = Stopped
		d.Delete = []Ending{{Record: s.merged(), Reason: ReasonStop, Cause: s.ev.TerminateCause}}
	}
	return d
}

func (s *decider) note() Decision {
	return Decision{Verdict: Noted, Session: s.closed(ReasonStop)}
}

func (s *decider) leave() Decision {
	d := Decision{Verdict: Left, Session: s.closed(ReasonNone)}
	s.end(&d)
	return d
}

// The records and states that a decision writes.

// NewEnding ends a record at a given event time and remembers its session. If
// the record's SessionID is that of a link that has ended, it remembers none:
// that identifier may be another session's by now.
func NewEnding(r Record, why Reason, at time.Time) Ending {
	e := Ending{Record: r, Reason: why}
	if r.SessionID != (SessionID{}) && r.belongsTo(r.SessionID) {
		e.Tombstone = &SessionState{
			Phase: Closed, Inside: r.Inside, Start: r.StartedAt,
			End: later(at, r.StartedAt), Heard: r.UpdatedAt, Reason: why, UserName: r.UserName,
		}
	}
	return e
}

// OpenState is the state to remember of the session of a record that was not
// written by the session's own accounting.
func OpenState(r *Record) SessionState {
	return SessionState{Phase: Open, Inside: r.Inside, Start: r.StartedAt, UserName: r.UserName}
}

// record is the event's session at the event's address, as a new record. Fields
// that the event leaves empty come from the session's old record.
func (s *decider) record() Record {
	ev := &s.ev
	r := Record{SessionID: ev.SessionID}
	if s.relation == RelationSame && s.own != nil {
		r = *s.own
	} else if s.owner == OwnerAdoptable {
		r = *s.view.Holder
		if r.servesIn(ev) || !r.belongsTo(ev.SessionID) && !ev.joins(&r) {
			r.MultiSessionID, r.Links = "", nil
		}
		r.SessionID = ev.SessionID
	} else if s.owner == OwnerLink {
		r = *s.view.Holder
	}
	r.Key = Key{Group: s.view.Group, Inside: ev.Inside}
	r.ExpiresAt, r.Unconfirmed, r.RemovalHeld = time.Time{}, false, ReasonNone
	if s.owner != OwnerLink {
		r.StartedAt = s.shownStart()
	}
	r.UpdatedAt = later(s.heardAt(), r.UpdatedAt)
	r.learn(ev)
	r.link(ev)
	return r
}

// merged is the session's own record with the event applied. An older event
// fills gaps only (I4).
func (s *decider) merged() Record {
	r := *s.own
	r.ExpiresAt, r.Unconfirmed, r.RemovalHeld = time.Time{}, false, ReasonNone
	if len(r.Links) == 0 {
		r.SessionID, r.StartedAt = s.ev.SessionID, s.shownStart()
	}
	at := s.heardAt()
	if at.Before(r.UpdatedAt) {
		return r
	}
	r.UpdatedAt = at
	r.learn(&s.ev)
	r.link(&s.ev)
	return r
}

// shownStart is the start for the session's record: as the NAS tells it, if
// nothing is known of its clock. No decision uses it.
func (s *decider) shownStart() time.Time {
	switch {
	case s.ev.Kind == EventStart && s.start.Equal(s.ev.At) && s.ev.Claimed.After(s.view.Restart.At):
		return s.ev.Claimed
	case s.own != nil && s.relation == RelationSame && s.start.Equal(s.session.Start):
		return s.own.StartedAt
	}
	return s.start
}

// heardAt is the event time that goes into the record.
func (s *decider) heardAt() time.Time { return later(s.occurred(), s.start) }

// learn copies the event's values into the record. The first User-Name stays: a
// NAS that rewrites it in the middle of a session does not make another
// subscriber.
func (r *Record) learn(ev *Event) {
	if ev.Service {
		r.linkService(ev)
		return
	}
	r.UserName = firstOf(r.UserName, ev.UserName)
	r.CallingStationID = firstOf(ev.CallingStationID, r.CallingStationID)
	if ev.Class != "" {
		r.Classes = ev.Classes // all or none
	}
	if ev.NASAddress.IsValid() {
		r.NASAddress = ev.NASAddress
	}
	r.IPv6.learn(&ev.IPv6)
	r.Counters.learn(ev.Counters)
}

// learn copies the counters that are reported.
func (c *Counters) learn(o Counters) {
	if o.InputOctets != 0 {
		c.InputOctets = o.InputOctets
	}
	if o.OutputOctets != 0 {
		c.OutputOctets = o.OutputOctets
	}
}

// learn copies the lists that are reported.
func (v *IPv6) learn(o *IPv6) {
	if len(o.FramedIPv6Addresses) > 0 {
		v.FramedIPv6Addresses = o.FramedIPv6Addresses
	}
	if len(o.FramedIPv6Prefixes) > 0 {
		v.FramedIPv6Prefixes = o.FramedIPv6Prefixes
	}
	if len(o.DelegatedPrefixes) > 0 {
		v.DelegatedPrefixes = o.DelegatedPrefixes
	}
}

// open is the state of the event's session, online.
func (s *decider) open() *SessionState {
	state := SessionState{Phase: Open, Start: s.start, Exact: s.ev.Kind == EventStart, UserName: s.ev.UserName}
	if state.Exact {
		state.Stamp, state.Digest = s.ev.Stamp, s.ev.startDigest()
	}
	switch s.relation {
	case RelationSame, RelationLapsed:
		if s.session.Exact {
			state.Exact, state.Stamp, state.Digest = true, s.session.Stamp, s.session.Digest
		}
		state.UserName, state.Before = firstOf(s.session.UserName, s.ev.UserName), s.session.Before
	case RelationLater:
		state.Before = s.session.Start
	}
	state.Inside = s.whereabouts()
	return &state
}

// whereabouts is the present address of the session in this group; zero for
// none.
func (s *decider) whereabouts() netip.Addr {
	switch {
	case s.placed():
		return s.ev.Inside
	case s.relation == RelationSame:
		return s.session.Inside
	}
	return netip.Addr{}
}

// closed is the state of the event's session, over.
func (s *decider) closed(why Reason) *SessionState {
	state := SessionState{Phase: Closed, Reason: why, Start: s.start, Inside: s.ev.Inside, UserName: s.ev.UserName}
	if s.relation == RelationSame || s.relation == RelationLapsed {
		state.Exact, state.Stamp, state.Before = s.session.Exact, s.session.Stamp, s.session.Before
		state.Digest = s.session.Digest
		state.Inside = s.session.Inside
		state.UserName = firstOf(s.session.UserName, s.ev.UserName)
	}
	state.End = later(s.occurred(), s.start)
	return &state
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Records put by hand.

// DecidePut decides the effect of a record put by hand on the record at its
// address. The same subscriber keeps its session and its counters; another
// subscriber loses the address.
func DecidePut(holder *Record, r Record) Decision {
	if holder == nil {
		return Decision{Verdict: Opened, Put: &r, Created: true}
	}
	if holder.SameSubscriber(&r) || holder.anonymous() {
		kept := inherit(holder, r)
		return Decision{Verdict: Refreshed, Put: &kept}
	}
	end := NewEnding(*holder, ReasonSuperseded, r.StartedAt)
	return Decision{Verdict: TookOver, Delete: []Ending{end}, Put: &r, Created: true}
}

// inherit fills the empty fields of the new record from the present one.
func inherit(holder *Record, r Record) Record {
	if r.SessionID == (SessionID{}) {
		r.SessionID, r.MultiSessionID, r.Links = holder.SessionID, holder.MultiSessionID, holder.Links
	}
	r.UserName = firstOf(r.UserName, holder.UserName)
	r.CallingStationID = firstOf(r.CallingStationID, holder.CallingStationID)
	if r.Class == "" {
		r.Classes = holder.Classes
	}
	if !r.NASAddress.IsValid() {
		r.NASAddress = holder.NASAddress
	}
	if !holder.StartedAt.IsZero() {
		r.StartedAt = holder.StartedAt
	}
	r.InputOctets = max(r.InputOctets, holder.InputOctets)
	r.OutputOctets = max(r.OutputOctets, holder.OutputOctets)
	return r
}
