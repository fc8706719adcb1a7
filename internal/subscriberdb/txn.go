package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// maxAttempts bounds how often a step is decided again because somebody else
// was faster.
const maxAttempts = 16

// operation is what a step wants of Redis next.
type operation uint8

const (
	home    operation = iota // nothing: the step is done, or has failed
	look                     // to read what the decision rests on
	commit                   // to write the decision, if what it rests on still stands
	begin                    // the same, in short, for a new session
	refresh                  // the same, in short, for what an Interim changes of a record
	end                      // the same, in short, for a Stop
	drop                     // the same, in short, for a record that ends without an event of its own
)

// step is one decision and its atomic commit, in one group. It starts from a
// guess of what Redis holds, from the cache or read. The commit compares; where
// the guess is wrong nothing is written, and the step looks and decides again.
type step struct {
	group       *Group
	scope       subscriber.Scope
	id          subscriber.SessionID // session that is decided about; zero for none
	inside      netip.Addr           // address that is decided about; zero for none
	event       *subscriber.Event    // what is decided about; nil where decide is set
	decide      func(subscriber.View) subscriber.Decision
	usesRestart bool // the decision looks at the restart of id's NAS

	readSet
	cached    subscriber.Record // room for a record that the guess is made of
	surprised bool              // a guess was wrong

	errand   operation
	decision subscriber.Decision
	room     *subscriber.Room         // of the decision; nil where most decide nothing
	last     *subscriber.SessionState // of the session that an end or a drop ends
	buried   []announcement           // what it makes of tombstones that live for the full time
	oneGrave [1]announcement          // room for most
	feedID   string                   // last feed entry of the commit
	refused  bool                     // the guess does not hold
	err      error
}

// perform runs the steps, independent of each other, until each is done or has
// failed. Steps that must wait for another belong to another perform.
func (db *DB) perform(ctx context.Context, steps []*step) {
	for range maxAttempts {
		out := make([]*step, 0, len(steps))
		for _, s := range steps {
			if s.prepare(db); s.errand != home {
				out = append(out, s)
			}
		}
		if len(out) == 0 {
			return
		}
		db.courier.submit(ctx, out)
		steps = out[:0]
		for _, s := range out {
			if !s.conclude(db) {
				steps = append(steps, s)
			}
		}
		if len(steps) == 0 {
			return
		}
	}
	for _, s := range steps {
		s.fail(ErrConflict)
	}
}

// prepare decides, and says what is to be done about it.
func (s *step) prepare(db *DB) {
	if !s.made {
		s.errand = look
		return
	}
	s.buried = s.oneGrave[:0]
	v := s.view(s.group.Name, s.scope)
	if h := v.Holder; h != nil && s.event != nil && (h.NAS != s.id.NAS || h.Client != s.id.Client) {
		v.HolderApart = db.apart(s.group, h, s.id, s.event)
		v.HolderToldApart = db.toldApart(h.Client, s.id.Client)
	}
	if s.decide != nil {
		s.decision = s.decide(v)
	} else {
		ev := *s.event
		ev.SessionID = s.id
		if s.renamed(db, v, &ev) {
			s.errand = look
			return
		}
		ev.Inside = s.inside
		s.decision = s.room.Decide(v, ev)
	}
	switch {
	case db.generalOnly && (s.decision.Writes() || !s.certain()):
		s.errand = commit
	case s.refreshes(db):
		s.errand = refresh
	case s.begins():
		s.errand = begin
	case s.ends():
		s.errand = end
	case s.drops():
		s.errand = drop
	case s.decision.Writes() || !s.certain():
		s.errand = commit
	default:
		s.errand = home
	}
}

// renamed reports whether the session is known by another identity than the event's
// own, and takes that: what was read is not of this session then.
func (s *step) renamed(db *DB, v subscriber.View, ev *subscriber.Event) bool {
	id := subscriber.Identify(v, ev)
	if id == s.id {
		return false
	}
	if from, to := codec.NASOf(s.id), codec.NASOf(id); from != to && db.nases.unite(from, to) {
		if suppressed, ok := db.uniteLog.Allow(db.now()); ok {
			db.logger.Warn("one NAS is heard of through two clients, which are taken as one for it: give them one realm",
				"client", from.Client, "nas", from.Name, "first_client", to.Client, "more_before", suppressed)
		}
	}
	s.id, s.surprised = id, true
	s.readSet = readSet{recordKey: s.recordKey}
	if s.usesRestart {
		s.restart = db.cache.restart(s.group.Name, id)
	}
	return true
}

// certain reports whether the decision rests on one key only, so that a plain
// look at it is as good as a commit.
func (s *step) certain() bool {
	if s.id == (subscriber.SessionID{}) {
		return true
	}
	return s.line == "" && (s.scope == subscriber.Elsewhere || s.scope == subscriber.NoAddress)
}

// conclude takes what Redis answered, and reports whether the step is done.
func (s *step) conclude(db *DB) bool {
	switch {
	case s.err != nil:
		s.fail(s.err)
		return true
	case s.errand == look:
		if err := s.settle(s.id, s.inside); err != nil {
			s.fail(fmt.Errorf("key %s: %w", s.sessionKey, err))
			return true
		}
		if s.usesRestart {
			db.cache.setRestart(s.group.Name, s.id, s.restart)
		}
		return false
	case s.refused:
		s.surprised, s.refused = true, false
		s.readSet = readSet{sessionKey: s.sessionKey, recordKey: s.recordKey, restartKey: s.restartKey, restart: s.restart}
		return false
	}
	for _, b := range s.buried {
		db.tombstones.wrote(b.client, b.octets, db.now())
	}
	if s.decision.Put != nil {
		s.decision.Put.Version = s.feedID
	}
	if s.decision.Restart != nil {
		s.decision.Restart.ID = s.feedID
	}
	return true
}

func (s *step) fail(err error) { s.err = fmt.Errorf("group %s: %w", s.group.Name, err) }

// remembers reports whether the step has a session to remember.
func (s *step) remembers() bool { return s.id != (subscriber.SessionID{}) }

// keySession returns the key of the session's state, built once.
func (s *step) keySession() string {
	if s.sessionKey == "" {
		s.sessionKey = codec.SessionKey(s.group.Name, s.id)
	}
	return s.sessionKey
}

// keyRestart returns the key of the restart of the session's NAS, built once.
func (s *step) keyRestart() string {
	if s.restartKey == "" {
		s.restartKey = codec.RestartKey(s.group.Name, s.id)
	}
	return s.restartKey
}

// keyRecord returns the key of the record at the step's address, built once.
func (s *step) keyRecord() string {
	if s.recordKey == "" {
		s.recordKey = codec.RecordKey(s.group.Name, s.inside)
	}
	return s.recordKey
}
