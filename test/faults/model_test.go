package faults

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// A session is one accounting session as its NAS knows it.
type session struct {
	id, user, nas string
	start         time.Time // event time; set when it is first reported
	heard         time.Time // event time of what was reported last
	begun         *telling  // its Start; nil where that was lost
	era           int       // of its NAS's clock, when it was heard last
	shared        bool      // another session of the NAS has the same identifier
	moved         bool      // from the address of its Start
	uncertain     bool      // its start is, for its NAS's clock had just been set back
}

// A line is one inside address, and who had it.
type line struct {
	inside netip.Addr
	online *session   // by the events that were answered, in order of event time
	lapsed *session   // the newest that ended without a word of its NAS: an Interim brings it back
	ended  []*session // newest last, over for good: nothing brings them back
	last   string     // NAS that told of the line last, as of a session that was, or may be, online there
}

// rememberEnded is how many ended sessions of a line get late events.
const rememberEnded = 3

// model is who should be online. It knows nothing of how that comes about.
type model struct {
	lines   []*line
	nases   []*nas
	removal bool // the toggle subscriber_session_removal

	sessions  int            // given out so far
	restarted map[string]int // the round of a NAS's newest restart
}

func newModel(inside []netip.Addr, rng *rand.Rand) *model {
	m := &model{nases: newNASes(rng), removal: true, restarted: map[string]int{}}
	for _, a := range inside {
		m.lines = append(m.lines, &line{inside: a})
	}
	return m
}

func (m *model) newSession(user, nas string) *session {
	m.sessions++
	return &session{id: fmt.Sprintf("s%d", m.sessions), user: user, nas: nas}
}

func (m *model) count(holds func(*line) bool) int {
	n := 0
	for _, l := range m.lines {
		if holds(l) {
			n++
		}
	}
	return n
}

func isOnline(l *line) bool  { return l.online != nil }
func isOffline(l *line) bool { return l.online == nil }

// owner is the user to whom a line belongs when nobody took it over.
func (l *line) owner() string { return "user-" + l.inside.String() }

// begin puts a session online; one that is there is superseded.
func (l *line) begin(s *session) {
	l.end()
	if l.lapsed == s {
		l.lapsed = nil
	}
	l.online, l.last = s, s.nas
}

// end ends what is online for good: Stop, takeover.
func (l *line) end() {
	if l.online != nil {
		l.bury(l.online)
		l.online = nil
	}
}

// lapse ends what is online without a word of its NAS.
func (l *line) lapse() {
	l.lapsed, l.online = l.online, nil
}

func (l *line) bury(s *session) {
	l.ended = append(l.ended, s)
	l.ended = l.ended[max(0, len(l.ended)-rememberEnded):]
}

// stopLapsed is the late Stop of the lapsed session: now its NAS has said it.
func (l *line) stopLapsed() {
	l.bury(l.lapsed)
	l.lapsed = nil
}

// restart ends what a NAS has had online. If it was none, as some NASes send, the next
// Interim brings that back.
func (m *model) restart(nas string) {
	for _, l := range m.lines {
		if l.online != nil && l.online.nas == nas {
			l.lapse()
		}
	}
}

// forget is what the loss of the database does: what ended is not remembered.
func (m *model) forget() {
	for _, l := range m.lines {
		l.lapsed, l.ended = nil, nil
	}
}
