package subscriber

import "time"

// Tolerances of event times.
const (
	// A retransmission reckons its time from arrival and a delay in whole
	// seconds (ACCT-16), so that it may come out this much off.
	jitter = 2 * time.Second
	// A Start so near to the known one is the same Start sent again; no NAS
	// ends a session and reuses its identifier within it.
	sameStart = 5 * time.Second
	// Acct-Session-Time is counted from some moment near the Start (SES-12).
	sessionTimeSlack = 60 * time.Second
)

// Standing is how an event stands to what is known of its session. It is the
// row of the table of rules.
type Standing uint8

// The standings.
const (
	StandingUnknown Standing = iota // nothing is known of the session
	StandingSame                    // online, and the event is about it
	StandingEarlier                 // online, and the event is older than that
	StandingLater                   // the event begins a new session under a known identifier
	StandingEnded                   // the event is about a session that is over
	StandingLapsed                  // ended without the NAS's word; the event knows better
	StandingBefore                  // the session began before its NAS restarted
	standings
)

// stand classifies the event; the first of the few conditions that holds.
func (s *survey) stand() Standing {
	standing := s.againstSession()
	if s.ev.Kind != EventStop && s.beforeRestart(standing) {
		return StandingBefore
	}
	return standing
}

func (s *survey) againstSession() Standing {
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
	return StandingUnknown
}

// A Start of a session that is online is the Start sent again, unless another
// user, another address or a clearly newer time tells that the NAS began anew
// (SES-12).
func (s *survey) startAgainstOpen() Standing {
	at, known := s.ev.At, &s.session
	switch {
	case s.otherUser():
		return laterUnless(at.Before(known.Start))
	case s.moved():
		return laterUnless(at.Before(s.lastHeard()))
	case at.After(known.Start.Add(sameStart)):
		return StandingLater
	case known.Exact && at.Before(known.Start.Add(-sameStart)):
		return StandingEarlier
	}
	return StandingSame
}

func (s *survey) interimAgainstOpen() Standing {
	at, known := s.ev.At, &s.session
	switch {
	case at.Before(known.Start.Add(-jitter)):
		return StandingEarlier
	case s.otherUser() && s.beganAfter(known.Start):
		return StandingLater
	case s.moved() && (at.Before(s.lastHeard()) || s.beganBefore(known)):
		return StandingEarlier
	}
	return StandingSame
}

// A Stop ends its session only if it is not the Stop of an earlier one with the
// same identifier (SES-12).
func (s *survey) stopAgainstOpen() Standing {
	if s.ev.At.Before(s.session.Start.Add(-jitter)) || s.beganBefore(&s.session) {
		return StandingEarlier
	}
	return StandingSame
}

// A Start that equals the one of the ended session is a replay, and an older
// one came too late (SES-11).
func (s *survey) startAgainstClosed() Standing {
	at, known := s.ev.At, &s.session
	switch {
	case s.otherUser():
		return laterOrEnded(at.After(known.Start))
	case at.Sub(known.Start).Abs() <= jitter:
		return StandingEnded
	}
	return laterOrEnded(!at.Before(known.End))
}

func (s *survey) interimAgainstClosed() Standing {
	known := &s.session
	switch {
	case s.beganAfter(known.End), s.otherUser() && s.ev.At.After(known.End):
		return StandingLater
	case known.Reason.lapses() && s.ev.At.After(known.End):
		return StandingLapsed
	case known.Reason == ReasonSuperseded && s.moved() && s.ev.At.After(known.End):
		return StandingLapsed // another took the address that it had left
	}
	return StandingEnded
}

func (s *survey) stopAgainstClosed() Standing {
	switch {
	case s.beganAfter(s.session.End):
		return StandingLater
	case s.session.Reason.lapses():
		return StandingLapsed
	}
	return StandingEnded
}

// beforeRestart reports whether the session of a Start or Interim began before
// its NAS restarted.
func (s *survey) beforeRestart(standing Standing) bool {
	restart := s.view.Restart
	switch {
	case restart.At.IsZero():
		return false
	case standing == StandingSame && s.own != nil:
		return restart.Ends(s.own)
	case s.reckoned(standing) && !s.ev.Began().Before(restart.At.Add(-jitter)):
		s.floor = restart.At
		return false
	}
	return s.startFor(standing).Before(restart.At)
}

// reckoned reports whether the session's start is known from an Interim only.
// Jitter may put it just before the restart after which the session began; it
// then counts as begun with the restart.
func (s *survey) reckoned(standing Standing) bool {
	return s.ev.Kind == EventInterim && (standing == StandingUnknown || standing == StandingLater)
}

// moved reports whether the event tells another address than the known one.
func (s *survey) moved() bool {
	if s.view.Scope == Elsewhere {
		return true
	}
	return s.ev.Inside.IsValid() && s.session.Inside.IsValid() && s.ev.Inside != s.session.Inside
}

func (s *survey) otherUser() bool {
	return s.ev.UserName != "" && s.session.UserName != "" && s.ev.UserName != s.session.UserName
}

// lastHeard is the newest event time taken into the open session.
func (s *survey) lastHeard() time.Time {
	if s.own != nil {
		return s.own.UpdatedAt
	}
	return s.session.Start
}

// beganAfter reports whether Acct-Session-Time proves that the event's session
// began after t.
func (s *survey) beganAfter(t time.Time) bool {
	return s.ev.SessionTime >= 0 && s.ev.Began().After(t.Add(sessionTimeSlack))
}

// beganBefore reports whether Acct-Session-Time proves that the event belongs
// to a session that began before the known one. A reckoned start proves nothing.
func (s *survey) beganBefore(known *SessionState) bool {
	return known.Exact && s.ev.SessionTime >= 0 &&
		s.ev.Began().Before(known.Start.Add(-sessionTimeSlack))
}

func laterUnless(older bool) Standing {
	if older {
		return StandingEarlier
	}
	return StandingLater
}

func laterOrEnded(later bool) Standing {
	if later {
		return StandingLater
	}
	return StandingEnded
}
