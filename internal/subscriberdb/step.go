package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// maxAttempts bounds how often a step is decided again because somebody else
// was faster; each attempt starts from the state that beat the last one.
const maxAttempts = 16

// anyVersion is no version of a record: a condition on it fails, and so reads.
const anyVersion = "?"

// step is one decision and its atomic commit, in one group. It starts from a
// guess of what the database holds; where the guess is wrong, the script returns
// what stands instead, and the step is decided anew on that.
type step struct {
	group  *Group
	scope  subscriber.Scope
	id     subscriber.SessionID // session that is decided about; zero for none
	inside netip.Addr           // address that is decided about; zero for none
	decide func(subscriber.View) subscriber.Decision

	usesRestart bool // the decision looks at the restart of id's NAS
	blind       bool // no guess: read first

	session string // state line of id
	restart string // restart line of id's NAS
	holder  *subscriber.Record
	current *subscriber.Record // record at the address where the session is open, if another than inside
	fresh   bool               // the above was read in one piece, not guessed

	surprised bool // the first guess was wrong

	decision subscriber.Decision
	call     *call
	err      error
	done     bool
}

// perform runs the steps, independent of each other, until each is done or has
// failed. Steps that must wait for another belong to another perform.
func (db *DB) perform(ctx context.Context, steps []*step) {
	for range maxAttempts {
		if steps = unfinished(steps); len(steps) == 0 {
			return
		}
		calls := make([]*call, 0, len(steps))
		for _, s := range steps {
			if s.prepare(db); s.call != nil {
				calls = append(calls, s.call)
			}
		}
		db.run(ctx, calls)
		for _, s := range steps {
			s.conclude(db)
		}
	}
	for _, s := range unfinished(steps) {
		s.fail(ErrConflict)
	}
}

func unfinished(steps []*step) []*step {
	left := steps[:0:0]
	for _, s := range steps {
		if !s.done {
			left = append(left, s)
		}
	}
	return left
}

// prepare decides, and makes the call that commits the decision. A decision
// without writes on what was read in one piece needs no call.
func (s *step) prepare(db *DB) {
	s.call = nil
	view, err := s.view()
	if err != nil {
		s.fail(err)
		return
	}
	if !s.blind {
		s.decision = s.decide(view)
	}
	switch {
	case s.blind:
		s.call = newCommit(db, s).call()
	case s.decision.Writes():
		c := newCommit(db, s)
		c.write(&s.decision)
		s.call = c.call()
	case s.fresh:
		s.done = true
	case s.hinges():
		s.call = &call{keys: []string{sessionKey(s.group.Name, s.id)}}
	default:
		s.call = newCommit(db, s).call()
	}
}

// hinges reports whether the decision rests on nothing but the session being
// unknown, which a plain GET can tell.
func (s *step) hinges() bool {
	return s.session == "" && (s.scope == subscriber.Elsewhere || s.scope == subscriber.NoAddress)
}

func (s *step) view() (subscriber.View, error) {
	session, err := parseState(s.session)
	if err != nil {
		return subscriber.View{}, fmt.Errorf("key %s: %w", sessionKey(s.group.Name, s.id), err)
	}
	v := subscriber.View{
		Group: s.group.Name, Scope: s.scope, Session: session,
		Holder: s.holder, Restart: parseRestart(s.restart),
	}
	if a := s.elsewhere(); a.IsValid() && s.current != nil && s.current.Inside == a {
		v.Current = s.current
	}
	return v, nil
}

// elsewhere is the address where the session is open, if that is not the one
// that is decided about.
func (s *step) elsewhere() netip.Addr {
	session, err := parseState(s.session)
	if err != nil || session.Phase != subscriber.Open || session.Inside == s.inside {
		return netip.Addr{}
	}
	return session.Inside
}

// conclude reads the reply: done, or what stands instead.
func (s *step) conclude(db *DB) {
	if s.done || s.call == nil {
		return
	}
	if s.call.err != nil {
		s.fail(s.call.err)
		return
	}
	if s.call.script == nil {
		s.concludeGet()
		return
	}
	reply, _ := s.call.reply.([]any)
	if len(reply) < 2 {
		s.fail(fmt.Errorf("commit script answered %v", s.call.reply))
		return
	}
	if held, _ := reply[0].(int64); held == 1 {
		s.committed(reply[1])
		return
	}
	s.absorb(db, reply[1:])
}

func (s *step) concludeGet() {
	line, _ := s.call.reply.(string)
	s.done = line == s.session
	s.session = line
}

func (s *step) committed(id any) {
	s.done = true
	feedID, _ := id.(string)
	if s.decision.Put != nil {
		s.decision.Put.Version = feedID
	}
	if s.decision.Restart != nil {
		s.decision.Restart.ID = feedID
	}
}

// absorb takes the state of every watched key, in the order of the conditions.
func (s *step) absorb(db *DB, states []any) {
	asked := s.elsewhere()
	s.surprised, s.blind, s.fresh = true, false, true
	for i, w := range s.watches(asked) {
		if i >= len(states) {
			break
		}
		w.absorb(s, states[i])
	}
	if s.usesRestart {
		db.cache.setRestart(restartKey(s.group.Name, s.id), s.restart)
	}
	if a := s.elsewhere(); a.IsValid() && a != asked {
		s.current, s.fresh = nil, false
	}
}

// standing is the record that stands at the record's address.
func (s *step) standing(r *subscriber.Record) *subscriber.Record {
	if s.holder != nil && s.holder.Inside == r.Inside {
		return s.holder
	}
	if s.current != nil && s.current.Inside == r.Inside {
		return s.current
	}
	return nil
}

func (s *step) fail(err error) {
	s.done = true
	s.err = fmt.Errorf("group %s: %w", s.group.Name, err)
}
