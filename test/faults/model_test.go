package faults

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// A session is one accounting session as its NAS knows it.
type session struct {
	id, user, nas string
	start         time.Time // event time; set when it is first reported
	heard         time.Time // event time of the newest report
	begun         *telling  // its Start; nil if that was lost
	era           int       // of its NAS's clock, at the newest report
	shared        bool      // another session of the NAS has the same identifier
	moved         bool      // from the address of its Start
	uncertain     bool      // its start is uncertain, because its NAS's clock had just been set back
}

// is reports whether it is a session of the user.
func (s *session) is(user string) bool { return s != nil && s.user == user }

// A line is one inside address, with its present and past sessions.
type line struct {
	inside netip.Addr
	group  *groupSpec
	online *session   // by the answered events, in order of event time
	lapsed *session   // the newest that ended without a Stop: an Interim brings it back
	ended  []*session // newest last, ended for good: no event brings them back
	last   string     // NAS that last reported a session online, or possibly online, on the line
}

// rememberEnded is the number of a line's ended sessions that get late events.
const rememberEnded = 3

// model is the expected set of online sessions, without any mechanism of sessiond.
type model struct {
	lines   []*line
	nases   []*nas
	removal bool // the toggle subscriber_session_removal

	sessions  int            // number of sessions so far
	restarted map[string]int // round of a NAS's newest restart
}

func newModel(rng *rand.Rand) *model {
	m := &model{nases: newNASes(rng), removal: true, restarted: map[string]int{}}
	for _, g := range groups {
		for a := g.first; len(m.linesOf(g)) < g.lines; a = a.Next() {
			m.lines = append(m.lines, &line{inside: a, group: g})
		}
	}
	return m
}

// linesOf returns the lines of a group.
func (m *model) linesOf(g *groupSpec) []*line {
	return slices.DeleteFunc(slices.Clone(m.lines), func(l *line) bool { return l.group != g })
}

// sparse returns every fourth line.
func (m *model) sparse() map[*line]bool {
	some := map[*line]bool{}
	for i := 3; i < len(m.lines); i += 4 {
		some[m.lines[i]] = true
	}
	return some
}

func (m *model) newSession(user, nas string) *session {
	m.sessions++
	return &session{id: fmt.Sprintf("s%d", m.sessions), user: user, nas: nas}
}

func isOnline(l *line) bool  { return l.online != nil }
func isOffline(l *line) bool { return l.online == nil }

// owner returns the user who has the line when no other user has taken it over.
func (l *line) owner() string { return ownerPrefix + l.inside.String() }

const ownerPrefix = "user-"

// begin puts a session online; the present one is superseded.
func (l *line) begin(s *session) {
	l.end()
	if l.lapsed == s {
		l.lapsed = nil
	}
	l.online, l.last = s, s.nas
}

// end ends the online session for good: Stop, takeover.
func (l *line) end() {
	if l.online != nil {
		l.bury(l.online)
		l.online = nil
	}
}

// lapse ends the online session without a Stop.
func (l *line) lapse() {
	l.lapsed, l.online = l.online, nil
}

func (l *line) bury(s *session) {
	l.ended = append(l.ended, s)
	l.ended = l.ended[max(0, len(l.ended)-rememberEnded):]
}

// stopLapsed applies the late Stop of the lapsed session.
func (l *line) stopLapsed() {
	l.bury(l.lapsed)
	l.lapsed = nil
}

// restart ends the online sessions of a NAS. If the NAS did not restart, as some send, the
// next Interim of each brings it back.
func (m *model) restart(nas string) {
	for _, l := range m.lines {
		if l.online != nil && l.online.nas == nas {
			l.lapse()
		}
	}
}

// forget applies the loss of the database: it no longer remembers ended sessions.
func (m *model) forget() {
	for _, l := range m.lines {
		l.lapsed, l.ended = nil, nil
	}
}
