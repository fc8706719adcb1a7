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

// classify fills in the relation and the start.
func (s *classifier) classify() {
	s.ev.arrange()
	s.own = s.findOwn()
	s.relation = s.stand()
	s.start = s.startFor(s.relation)
	if s.start.Before(s.floor) {
		s.start = s.floor
	}
}

// stand classifies the event; the first condition that holds decides.
func (s *classifier) stand() Relation {
	relation := s.againstSession()
	switch {
	case s.ev.Kind == EventStop:
		return relation
	case s.beforeRestart(relation), relation == RelationUnknown && s.begins() && s.ev.forgotten():
		return RelationBefore
	}
	return relation
}

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
	case s.otherUser():
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
	case s.otherUser() && (s.beganAfter(known.Start) || s.nearerBefore()):
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
	if s.ofEarlier() || s.ev.delayed() && s.ev.Latest.Before(s.session.Start.Add(-sessionTimeSlack)) {
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
	case s.otherUser():
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
	case s.withinEnded() && !s.otherUser():
		return RelationEnded
	case s.beganAnew(), s.otherUser() && s.ev.At.After(known.End) && !s.beganWith():
		return RelationLater
	case s.outlasts():
		return RelationLapsed
	}
	return RelationEnded
}

// outlasts reports whether the Interim shows that its session is online
// although it counts as ended: ended without its NAS's word, or because another
// session took its address. An online session is not evicted for it: see hold.
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
