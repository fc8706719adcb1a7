package faults

import (
	"fmt"
	"net/netip"
	"time"
)

// A session is one accounting session as its NAS knows it.
type session struct {
	id, user, nas string
	start         time.Time // event time; set when it is first reported
}

// A line is one inside address, and who had it.
type line struct {
	inside netip.Addr
	online *session   // by the events that were answered, in order of event time
	lapsed *session   // the newest that ended without a word of its NAS: an Interim brings it back
	ended  []*session // newest last, over for good: nothing brings them back
}

// rememberEnded is how many ended sessions of a line get late events.
const rememberEnded = 3

// model is who should be online. It knows nothing of how that comes about.
type model struct {
	lines   []*line
	removal bool // the toggle subscriber_session_removal

	sessions  int            // given out so far
	restarted map[string]int // the round of a NAS's newest restart
}

var nases = []string{"nas-1", "nas-2", "nas-3", "nas-4"}

func newModel(inside []netip.Addr) *model {
	m := &model{removal: true, restarted: map[string]int{}}
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
	l.online = s
}

// end ends what is online for good: Stop, restart of its NAS, takeover.
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

// restart ends what a NAS has had online, and what it might bring back.
func (m *model) restart(nas string) {
	for _, l := range m.lines {
		if l.online != nil && l.online.nas == nas {
			l.end()
		}
		if l.lapsed != nil && l.lapsed.nas == nas {
			l.stopLapsed()
		}
	}
}

// forget is what the loss of the database does: what ended is not remembered.
func (m *model) forget() {
	for _, l := range m.lines {
		l.lapsed, l.ended = nil, nil
	}
}
