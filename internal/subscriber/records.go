package subscriber

import (
	"net/netip"
	"time"
)

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
	return s.room.state(state)
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
	return s.room.state(state)
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
