package subscriber

import "time"

// Relation is the relation of an event to the known session: the row of the
// table of rules.
type Relation uint8

// The relations.
const (
	RelationUnknown Relation = iota // the session is not known
	RelationSame                    // online, and the event is about it
	RelationEarlier                 // online, and the event is older than that
	RelationLater                   // the event begins a new session under a known identifier
	RelationEnded                   // the event is about a session that is over
	RelationLapsed                  // ended without the NAS's word; the event shows it online
	RelationBefore                  // the session began before its NAS restarted
	relations
)

// classifier finds the relation of the event to the known session.
type classifier struct {
	evidence
	relation Relation
	start    time.Time // of the event's session
}

// classify fills in the relation and the start. A Stop ends its session, even if that began
// before the NAS restarted.
func (s *classifier) classify() {
	s.ev.arrange()
	s.own = s.findOwn()
	s.relation = s.againstSession()
	if s.ev.Kind != EventStop &&
		(s.beforeRestart(s.relation) || s.relation == RelationUnknown && s.begins() && s.ev.forgotten()) {
		s.relation = RelationBefore
	}
	s.start = s.startFor(s.relation)
	if s.start.Before(s.floor) {
		s.start = s.floor
	}
}

// againstSession is the relation by the known session alone.
func (s *classifier) againstSession() Relation {
	switch s.session.Phase {
	case Open:
		switch s.ev.Kind {
		case EventStart:
			return s.startAgainstOpen()
		case EventInterim:
			return s.interimAgainstOpen()
		}
		return s.stopAgainstOpen()
	case Closed:
		switch s.ev.Kind {
		case EventStart:
			return s.startAgainstClosed()
		case EventInterim:
			return s.interimAgainstClosed()
		}
		return s.stopAgainstClosed()
	}
	return RelationUnknown
}

// startAgainstOpen: a Start of a session that is online is the Start sent
// again. A new session begins only if another user, another address or the
// NAS's own later stamp shows it (SES-12).
func (s *classifier) startAgainstOpen() Relation {
	known := &s.session
	switch {
	case s.repeatsBefore():
		return RelationEarlier
	case s.session.otherUser(&s.ev):
		return laterUnless(s.ev.Latest.Before(known.Start))
	case s.moved():
		return laterUnless(s.stampedAlike() || s.samePacket() || s.repeats() || s.occurred().Before(s.lastHeard()))
	case s.stampedLater(), s.sinceRestart():
		return RelationLater
	case known.Exact && s.ev.Latest.Before(known.Start.Add(-sessionTimeSlack)), s.stampedEarlier():
		return RelationEarlier
	}
	return RelationSame
}

func (s *classifier) interimAgainstOpen() Relation {
	known := &s.session
	switch {
	case s.ofEarlier():
		return RelationEarlier
	case s.session.otherUser(&s.ev) && (s.beganAfter(known.Start) || s.nearerBefore()):
		return RelationLater
	case s.moved() && s.occurred().Before(s.lastHeard()):
		return RelationEarlier
	}
	return RelationSame
}

// stopAgainstOpen: a Stop ends the session that is online under its identifier,
// unless it is the Stop of an earlier one (SES-12). Its arrival alone is never
// before the start, because two daemons' clocks, or one clock that was set, may
// differ.
func (s *classifier) stopAgainstOpen() Relation {
	delayed := s.ev.Arrival.IsZero() || s.ev.Latest.Before(s.ev.Arrival) // by its own delay
	if s.ofEarlier() || delayed && s.ev.Latest.Before(s.session.Start.Add(-sessionTimeSlack)) {
		return RelationEarlier
	}
	return RelationSame
}

// startAgainstClosed: a Start that equals that of the ended session is a
// replay, and an older one came too late (SES-11).
func (s *classifier) startAgainstClosed() Relation {
	known := &s.session
	switch {
	case s.repeatsBefore():
		return RelationEnded
	case s.session.otherUser(&s.ev):
		return laterOrEnded(s.ev.Latest.After(known.Start))
	case s.sinceRestart():
		return RelationLater
	case s.replays():
		return RelationEnded
	case s.stampedLater() && !known.Stamp.IsZero():
		return laterOrEnded(!s.ev.Latest.Before(known.End.Add(-jitter)))
	}
	return laterOrEnded(!s.ev.At.Before(known.End))
}

func (s *classifier) interimAgainstClosed() Relation {
	known := &s.session
	switch {
	case s.withinEnded() && !s.session.otherUser(&s.ev):
		return RelationEnded
	case s.beganAnew(), s.session.otherUser(&s.ev) && s.ev.At.After(known.End) && !s.beganWith():
		return RelationLater
	case s.outlasts():
		return RelationLapsed
	}
	return RelationEnded
}

// outlasts reports whether the Interim shows that its session is online
// although it counts as ended: ended without its NAS's word, or because another
// session took its address. An online session is not evicted for it: see findOwner.
func (s *classifier) outlasts() bool {
	known := &s.session
	switch {
	case known.Reason == ReasonNASRestart:
		return s.newer(known.End.Add(jitter))
	case known.Reason.lapses():
		return s.newer(known.End)
	case known.Reason == ReasonStop:
		return s.counted() && s.newer(known.End.Add(sessionTimeSlack)) && s.lasted().After(known.End.Add(sessionTimeSlack))
	case known.Reason != ReasonSuperseded:
		return false
	case known.Doubtful:
		return s.newer(known.End)
	case s.moved():
		return s.newer(known.lastHeard()) // another session took the address that this one had left
	}
	return s.view.Scope == Here && s.view.Holder == nil && s.newer(known.End)
}

// lastHeard is the time of the last event of a session that ended.
func (s *SessionState) lastHeard() time.Time {
	if s.Heard.IsZero() {
		return s.End
	}
	return s.Heard
}

func (s *classifier) stopAgainstClosed() Relation {
	switch {
	case s.beganAfter(s.session.End) && !s.undated():
		return RelationLater
	case s.session.Reason.lapses():
		return RelationLapsed
	}
	return RelationEnded
}

// beforeRestart reports whether the session of a Start or Interim began before
// its NAS restarted, and ended with that.
func (s *classifier) beforeRestart(relation Relation) bool {
	restart := s.view.Restart
	switch {
	case restart.At.IsZero():
		return false
	case s.ev.Kind == EventInterim && s.newer(restart.At.Add(jitter)):
		return false // the NAS reports it, so it survived
	case relation == RelationSame && s.own != nil:
		return restart.Ends(s.own)
	case s.ev.Kind == EventStart:
		return s.startedBefore(restart)
	case s.reckoned(relation) && !s.ev.Began().Before(restart.At.Add(-jitter)):
		s.floor = restart.At
		return false
	}
	return s.startFor(relation).Before(restart.At)
}

// startFor is the start of the event's session, given its relation to the known
// one.
func (s *classifier) startFor(relation Relation) time.Time {
	switch relation {
	case RelationSame:
		if s.ev.Kind == EventStart && !s.session.Exact && s.ev.At.Before(s.session.Start) {
			return s.ev.At
		}
		return s.session.Start
	case RelationLapsed:
		return s.session.Start
	}
	return s.ev.Began()
}

// reckoned reports whether the session's start is known from an Interim only.
// Jitter may put it just before the restart after which the session began; then
// it counts as begun with the restart.
func (s *classifier) reckoned(relation Relation) bool {
	return s.ev.Kind == EventInterim && (relation == RelationUnknown || relation == RelationLater)
}

func laterUnless(older bool) Relation {
	if older {
		return RelationEarlier
	}
	return RelationLater
}

func laterOrEnded(later bool) Relation {
	if later {
		return RelationLater
	}
	return RelationEnded
}

// The evidence for a relation: one event beside the known session.

// Tolerances of event times.
const (
	// Event times come in whole seconds (ACCT-16), so they may be off by this much.
	jitter = 2 * time.Second
	// Stamps and delays come in whole seconds begun.
	wholeSecond = time.Second
	// Stamps of a Start that are this close are of the same Start; no NAS ends a
	// session and reuses its identifier within this time.
	sameStart = 5 * time.Second
	// Acct-Session-Time is counted from some moment near the Start (SES-12), and
	// the Start itself may have come late without telling so.
	sessionTimeSlack = 60 * time.Second
	// Networks and retransmissions reorder events by no more than this. A stamp
	// that is further behind comes from a clock that was set back, or from a relay
	// that kept the packet.
	reordering = 60 * time.Second
	// A packet without a time of its own is repeated, and so may be late, for this
	// long.
	repetition = 5 * time.Minute
)

// evidence compares one event with the known session, by their times, packets and records.
type evidence struct {
	view    View
	ev      Event
	session SessionState // of the view, completed from the record
	own     *Record      // the session's record; nil for none
	floor   time.Time    // earliest possible start of the session; zero for no bound
}

// findOwn finds the record of the event's session. The record takes precedence:
// if the session's state is lost, it is derived from the record.
func (s *evidence) findOwn() *Record {
	holder := s.view.Holder
	if holder != nil && (holder.belongsTo(s.ev.SessionID) || s.ev.Kind == EventStop && s.stoppable(holder)) {
		if s.session.Phase == Unknown {
			s.session = SessionState{Phase: Open, Inside: holder.Inside, Start: holder.StartedAt, UserName: holder.UserName}
		}
		if s.session.Phase == Open && s.session.Inside == holder.Inside {
			return holder
		}
	}
	current := s.view.Current
	if current != nil && s.session.Phase == Open && current.belongsTo(s.ev.SessionID) {
		return current
	}
	return nil
}

// begins reports whether a session may begin in this group.
func (s *evidence) begins() bool { return s.view.Scope == Here || s.view.Scope == Recorded }

// placed reports whether the event gives the session an address in this group.
func (s *evidence) placed() bool { return s.view.Scope == Here && s.ev.Inside.IsValid() }

// moved reports whether the event has another address than the known one.
func (s *evidence) moved() bool {
	if s.view.Scope == Elsewhere {
		return true
	}
	return s.ev.Inside.IsValid() && s.session.Inside.IsValid() && s.ev.Inside != s.session.Inside
}

// otherUser reports whether the event names another user than the known one.
func (s *SessionState) otherUser(ev *Event) bool {
	return ev.UserName != "" && s.UserName != "" && ev.UserName != s.UserName
}

// stampedLater reports whether the Start happened later than the known one, by
// the clock of the NAS that stamped both. If the known one has no stamp, the
// event time decides, less exactly; an arrival alone does not. The known start may
// have been judged by another state of the clock, and so may the time of the last
// report: so a Start from before its record was last written, by Redis's clock, is the
// one sent again.
func (s *evidence) stampedLater() bool {
	switch known := &s.session; {
	case s.ev.Stamp.IsZero():
		return false
	case known.Stamp.IsZero():
		if s.own != nil && (s.ev.At.Before(s.own.UpdatedAt) || s.ev.At.Before(VersionTime(s.own.Version))) {
			return false
		}
		return s.ev.Told && s.ev.At.After(known.Start.Add(sessionTimeSlack))
	default:
		return s.ev.Stamp.Add(-max(s.ev.Delay, 0)).After(known.Stamp.Add(sameStart))
	}
}

// stampedAlike reports whether the Start has the known one's stamp, so that it
// is the same one again, with the address of that time.
func (s *evidence) stampedAlike() bool {
	return !s.ev.Stamp.IsZero() && s.ev.Stamp.Equal(s.session.Stamp)
}

func (s *evidence) stampedEarlier() bool {
	known := s.session.Stamp
	return !s.ev.Stamp.IsZero() && !known.IsZero() && s.ev.Stamp.Before(known.Add(-sameStart))
}

// samePacket reports whether the Start, which has no stamp, has the octets of
// the known one.
func (s *evidence) samePacket() bool {
	return s.ev.Stamp.IsZero() && s.ev.Digest != 0 && s.ev.Digest == s.session.Digest
}

// repeats reports whether a Start without a time of its own comes so soon after
// the known one that it is probably a repetition.
func (s *evidence) repeats() bool {
	return s.ev.Stamp.IsZero() && s.ev.Delay <= 0 && s.ev.At.Sub(s.session.Start).Abs() <= repetition
}

// repeatsBefore reports whether the Start is that of the previous session under
// the same identifier again: both times are equal within sameStart.
func (s *evidence) repeatsBefore() bool {
	before := s.session.Before
	return !before.IsZero() && s.ev.At.Sub(before).Abs() <= sameStart
}

// replays reports whether the Start is the known one again.
func (s *evidence) replays() bool {
	known := &s.session
	apart := s.ev.At.Sub(known.Start).Abs()
	switch {
	case s.ev.Stamp.IsZero():
		return apart <= jitter || s.repeats() || s.samePacket()
	case known.Stamp.IsZero():
		return apart <= jitter
	}
	return s.ev.Stamp.Sub(known.Stamp).Abs() <= jitter
}

// undated reports whether only the packet's arrival tells the time of the
// event: the same octets sent again, with the same delay, tell the same. A NAS
// that has restarted since begins its identifiers anew.
func (s *evidence) undated() bool {
	return s.ev.Digest != 0 && s.ev.Stamp.IsZero() && !s.sinceRestart()
}

// withinEnded reports whether the ended session had the Interim's
// Acct-Session-Time too, so that the Interim may be one of that session.
func (s *evidence) withinEnded() bool {
	return s.undated() && s.counted() && !s.session.Reason.lapses() &&
		!s.session.Start.Add(s.ev.SessionTime).After(s.session.End.Add(sessionTimeSlack))
}

// ofEarlier reports whether an Interim or Stop is of the previous session under
// the same identifier, if there was one: by the start that Acct-Session-Time
// tells, or else by its time. If there was none, an odd time does not make the
// event another session's: identifier and order of arrival count for more,
// except for a Stop of another user.
func (s *evidence) ofEarlier() bool {
	known := &s.session
	if known.Before.IsZero() {
		return s.ev.Kind == EventStop && s.session.otherUser(&s.ev) && s.counted() && s.ev.Began().Before(known.Start.Add(-sessionTimeSlack))
	}
	if !s.counted() {
		return s.ev.At.Before(known.Start.Add(-jitter))
	}
	if s.ev.Kind == EventInterim && known.Before.Add(s.ev.SessionTime).After(known.Start.Add(sessionTimeSlack)) {
		return false // the previous session lasted beyond this start: both are one, or the previous one is online
	}
	return s.nearerBefore()
}

// nearerBefore reports whether the start by Acct-Session-Time is nearer to that
// of the previous session under the same identifier than to the known one.
func (s *evidence) nearerBefore() bool {
	known := &s.session
	if known.Before.IsZero() || !s.counted() {
		return false
	}
	began := s.ev.Began()
	return began.Sub(known.Before).Abs() < began.Sub(known.Start).Abs()
}

// counted reports whether the event has a usable Acct-Session-Time. Zero is
// none: an Interim or Stop comes after the Start, and some clients never count.
func (s *evidence) counted() bool { return s.ev.SessionTime > 0 }

// beganAfter reports whether Acct-Session-Time proves that the event's session
// began after t.
func (s *evidence) beganAfter(t time.Time) bool {
	return s.counted() && s.ev.Began().After(t.Add(sessionTimeSlack))
}

// beganAnew reports whether the Interim's session began, by Acct-Session-Time,
// after the known one had ended. A Stop and the next Start under the same
// identifier may be seconds apart. So an Interim that is late by as much as
// that session lasted looks the same.
func (s *evidence) beganAnew() bool {
	known := &s.session
	return s.beganAfter(known.Start) && s.ev.Began().After(known.End.Add(-jitter))
}

// beganWith reports whether the event's session began, by Acct-Session-Time,
// when the known one did, so that both are one.
func (s *evidence) beganWith() bool {
	return s.counted() && s.ev.Began().Sub(s.session.Start).Abs() <= sessionTimeSlack
}

// lasted is the end of Acct-Session-Time counted from the known start; zero if
// that lies after the arrival.
func (s *evidence) lasted() time.Time {
	until := s.session.Start.Add(s.ev.SessionTime)
	if until.After(s.ev.Latest.Add(sessionTimeSlack)) {
		return time.Time{}
	}
	return until
}

// lastHeard is the newest event time taken into the open session.
func (s *evidence) lastHeard() time.Time {
	if s.own != nil {
		return s.own.UpdatedAt
	}
	return s.session.Start
}

// occurred is the event's time, as far as its own values tell. The known Start
// and Acct-Session-Time are the best source, because they need no clock; those
// of another user do not count. A sum after the event's arrival is wrong. A sum
// long before it, without any other sign of a delay, comes from a wrong start.
func (s *evidence) occurred() time.Time {
	known := &s.session
	if s.ev.Kind == EventStart || !s.counted() || known.Start.IsZero() || s.session.otherUser(&s.ev) {
		return s.ev.At
	}
	told := known.Start.Add(s.ev.SessionTime)
	switch {
	case told.After(s.ev.Latest.Add(sessionTimeSlack)):
		return s.ev.At
	case told.After(s.ev.Latest):
		told = s.ev.Latest
	}
	if !s.ev.Told && s.ev.Latest.Sub(told) <= repetition {
		return told
	}
	return later(s.ev.At, told)
}

// newer reports whether the event happened after t. If the event's times
// conflict, the later one counts.
func (s *evidence) newer(t time.Time) bool { return s.occurred().After(t) }

// startedBefore reports whether a Start is from before the restart. A Start
// that arrives after an Accounting-On counts as after it if its clock is far
// behind: that clock may still have to be set.
func (s *evidence) startedBefore(restart Restart) bool {
	if !s.ev.At.Before(restart.At) {
		return false
	}
	s.floor = restart.At
	return s.ev.Latest.Before(restart.At) || !s.ev.farBehind()
}

// sinceRestart reports whether the known session is from before a restart of
// the NAS and the Start from after it: a NAS begins its identifiers anew with a
// restart, and addresses may stay.
func (s *evidence) sinceRestart() bool {
	restart, known := s.view.Restart, &s.session
	if !known.Start.Before(restart.At) || s.own != nil && !restart.Ends(s.own) {
		return false
	}
	return !s.stampedAlike() && !s.startedBefore(restart)
}
