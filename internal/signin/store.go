// Package signin has the sign-ins of browsers: sessions, the forms of a session, and the bound on
// attempts. It knows nothing of HTTP, and now is an argument.
//
// Reading order:
//
//	store.go    the sessions
//	form.go     forms that only the pages of a session can have
//	attempts.go the attempts of each source
package signin

import (
	"crypto/rand"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/access"
)

// Ends of a session.
const (
	IdleTime = 30 * time.Minute // without a page that a person asks for
	Lifetime = 12 * time.Hour   // in any case: a long shift
)

// Bounds of a Store.
const (
	sessionsPerHolder  = 64 // of one holder of a token; the one that is idle for longest makes room
	outcomesPerSession = 32
)

// Holder is who signs in.
type Holder struct {
	Token access.Token // required
	Name  string       // required; as the audit has it
	Role  access.Role  // required
	User  *uint32      // of this machine, where the browser is on it and the kernel tells; optional
}

// Session is one sign-in of a browser. Its holder does not change.
type Session struct {
	Holder
	began  time.Time
	secret []byte // of its forms

	mu       sync.Mutex
	used     time.Time
	outcomes []Outcome // the oldest first
}

// Outcome is the outcome of a change, for the page behind its form.
type Outcome struct {
	RequestID string
	Title     string
	Text      string
	Back      string // path of the page to go on with
}

// Store has the sessions. It keeps no identifier of a session, only its hash. Its methods may be
// called concurrently; the zero value is ready.
type Store struct {
	mu       sync.Mutex
	sessions map[sessionKey]*Session
}

// sessionKey is the SHA-256 of a session's identifier. Finding it tells nothing of the identifier
// by its time.
type sessionKey [sha256.Size]byte

func keyOf(id string) sessionKey { return sha256.Sum256([]byte(id)) }

// Begin begins a session, and returns its identifier of 130 random bits, for a cookie.
func (s *Store) Begin(h Holder, now time.Time) (id string, session *Session) {
	id, session = rand.Text(), &Session{Holder: h, began: now, used: now, secret: []byte(rand.Text())}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions == nil {
		s.sessions = map[sessionKey]*Session{}
	}
	maps.DeleteFunc(s.sessions, func(_ sessionKey, other *Session) bool { return other.over(now) })
	s.makeRoomLocked(h.Name)
	s.sessions[keyOf(id)] = session
	return id, session
}

// makeRoomLocked ends the session of a holder that is idle for longest, if it has as many as it may.
func (s *Store) makeRoomLocked(holder string) {
	own := 0
	var idlest sessionKey
	var since time.Time
	for key, other := range s.sessions {
		if other.Name != holder {
			continue
		}
		own++
		if used := other.lastUsed(); own == 1 || used.Before(since) {
			idlest, since = key, used
		}
	}
	if own >= sessionsPerHolder {
		delete(s.sessions, idlest)
	}
}

// Find returns the session with an identifier; nil for none. Used says that a person asks for
// something, which keeps the session from its idle end.
func (s *Store) Find(id string, now time.Time, used bool) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.sessions[keyOf(id)]
	if session == nil {
		return nil
	}
	if session.over(now) {
		delete(s.sessions, keyOf(id))
		return nil
	}
	if used {
		session.use(now)
	}
	return session
}

// End ends the session with an identifier, if there is one.
func (s *Store) End(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, keyOf(id))
}

func (s *Session) use(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = now
}

func (s *Session) lastUsed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

func (s *Session) over(now time.Time) bool {
	return now.Sub(s.began) >= Lifetime || now.Sub(s.lastUsed()) >= IdleTime
}

// Keep keeps an outcome, in place of an earlier one of the same request.
func (s *Session) Keep(o Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes = slices.DeleteFunc(s.outcomes, func(other Outcome) bool { return other.RequestID == o.RequestID })
	if s.outcomes = append(s.outcomes, o); len(s.outcomes) > outcomesPerSession {
		s.outcomes = slices.Delete(s.outcomes, 0, 1)
	}
}

// Outcome returns the outcome of a request, while it is kept.
func (s *Session) Outcome(requestID string) (Outcome, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.outcomes, func(o Outcome) bool { return o.RequestID == requestID })
	if i < 0 {
		return Outcome{}, false
	}
	return s.outcomes[i], true
}
