package subscriber

import "time"

// Began returns the start of the event's session, as far as the event tells:
// the time of a Start, or else Acct-Session-Time before the event (SES-03).
func (ev *Event) Began() time.Time {
	if ev.Kind == EventStart || ev.SessionTime < 0 {
		return ev.At
	}
	return ev.At.Add(-ev.SessionTime)
}

// evidence is one event beside the known session: what their times, packets and records
// say of each other.
type evidence struct {
	view    View
	ev      Event
	session SessionState // of the view, completed from the record
	own     *Record      // the session's record; nil for none
	floor   time.Time    // earliest possible start of the session; zero for no bound
}

// classifier finds the relation of the event to the known session.
type classifier struct {
	evidence
	standing Relation
	start    time.Time // of the event's session
}

// classify fills in the relation and the start.
func (s *classifier) classify() {
	s.ev.arrange()
	s.own = s.findOwn()
	s.standing = s.stand()
	s.start = s.startFor(s.standing)
	if s.start.Before(s.floor) {
		s.start = s.floor
	}
}

// shownStart is the start for the session's record: as the NAS tells it, if
// nothing is known of its clock. No decision uses it.
func (s *decider) shownStart() time.Time {
	switch {
	case s.ev.Kind == EventStart && s.start.Equal(s.ev.At) && s.ev.Claimed.After(s.view.Restart.At):
		return s.ev.Claimed
	case s.own != nil && s.standing == StandingSame && s.start.Equal(s.session.Start):
		return s.own.StartedAt
	}
	return s.start
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

// startFor is the start of the event's session, given its relation to the known
// one.
func (s *classifier) startFor(standing Relation) time.Time {
	switch standing {
	case StandingSame:
		if s.ev.Kind == EventStart && !s.session.Exact && s.ev.At.Before(s.session.Start) {
			return s.ev.At
		}
		return s.session.Start
	case StandingLapsed:
		return s.session.Start
	}
	return s.ev.Began()
}
