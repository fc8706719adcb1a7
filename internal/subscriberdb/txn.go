package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
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
	via         string               // RADIUS client that it is counted to; "" for that of the session
	decider     decider
	usesRestart bool // the decision looks at the restart of id's NAS

	readSet
	cached    subscriber.Record // room for a record that the guess is made of
	surprised bool              // a guess was wrong

	errand   operation
	decision subscriber.Decision
	last     *subscriber.SessionState // of the session that an end or a drop ends
	buried   []announcement           // what it makes of tombstones that live for the full time
	oneGrave [1]announcement          // room for most
	feedID   string                   // last feed entry of the commit
	refused  bool                     // the guess does not hold
	err      error
}

// A decider decides about a step by what Redis holds. It returns under which identity the
// session is known: where that is another one than the step's, the step goes on with what
// Redis holds of that session, and decides again.
type decider interface {
	decide(s *step, v subscriber.View) (subscriber.Decision, subscriber.SessionID)
}

// decideFunc is a decider that goes by nothing but the view.
type decideFunc func(subscriber.View) subscriber.Decision

func (f decideFunc) decide(s *step, v subscriber.View) (subscriber.Decision, subscriber.SessionID) {
	return f(v), s.id
}

// txnEngine decides, and commits what was decided.
type txnEngine struct {
	client       *redisconn.Client
	garbage      *garbageReports
	feedLimit    int64 // entries that a feed may grow to
	tombstoneTTL time.Duration
	tombstones   tombstoneBudget
	cache        *cache
	committer    committer
	knowsNAS     func(id subscriber.SessionID) bool  // there is room for what is known of the session's NAS
	crowded      func(client string)                 // a session is remembered for minutes only, for want of room
	renewFeed    func(ctx context.Context, g *Group) // the group's feed takes no entry any more
	now          func() time.Time
	generalOnly  bool // all commits go through commitScript: so a test compares both ways
}

// perform runs the steps, independent of each other, until each is done or has
// failed. Steps that must wait for another belong to another perform.
func (e *txnEngine) perform(ctx context.Context, steps []*step) {
	for range maxAttempts {
		out := make([]*step, 0, len(steps))
		for _, s := range steps {
			if s.prepare(e); s.errand != home {
				out = append(out, s)
			}
		}
		if len(out) == 0 {
			return
		}
		e.committer.submit(ctx, out)
		steps = out[:0]
		for _, s := range out {
			if !s.conclude(e) {
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
func (s *step) prepare(e *txnEngine) {
	if !s.made {
		s.errand = look
		return
	}
	s.buried = s.oneGrave[:0]
	d, id := s.decider.decide(s, s.view(s.group.Name, s.scope))
	if id != s.id {
		s.rename(e, id)
		return
	}
	s.decision = d
	switch {
	case e.generalOnly && (s.decision.Writes() || !s.certain()):
		s.errand = commit
	case s.refreshes(e):
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

// rename goes on with the session of another identity: what was read is not of it.
func (s *step) rename(e *txnEngine, id subscriber.SessionID) {
	s.id, s.surprised, s.errand = id, true, look
	s.readSet = readSet{recordKey: s.recordKey}
	if s.usesRestart {
		s.restart = e.cache.restart(s.group.Name, id)
	}
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
func (s *step) conclude(e *txnEngine) bool {
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
			e.cache.setRestart(s.group.Name, s.id, s.restart)
		}
		return false
	case s.refused:
		s.surprised, s.refused = true, false
		s.readSet = readSet{sessionKey: s.sessionKey, recordKey: s.recordKey, restartKey: s.restartKey, restart: s.restart}
		return false
	}
	for _, b := range s.buried {
		e.tombstones.wrote(b.client, b.octets, e.now())
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

// loadFromCache starts the step from what the last commit of the session left behind;
// a Start, unless it is sent again, is of a session that nobody knows. It reports
// whether the session is known to be open at the step's address.
func (s *step) loadFromCache(e *txnEngine, starts bool) bool {
	if t := e.cache.get(cachedSessionKey{s.group.Name, s.id}, &s.cached); t != nil {
		return s.follow(t, &s.cached, s.inside)
	}
	s.made = starts
	return false
}

// updateCache keeps the state of a session that is open in the step's group and, where the
// caller knows that of every group, nowhere else. It reports whether it kept one that may be
// new.
func (s *step) updateCache(e *txnEngine, complete bool) bool {
	id := cachedSessionKey{s.group.Name, s.id}
	d := &s.decision
	switch {
	case complete && !s.surprised && !d.Writes():
		return false
	case !complete || d.Put == nil || d.Session == nil || d.Put.Inside != s.inside:
		e.cache.forget(id)
		return false
	}
	e.cache.put(id, newTrace(d.Put, d.Session))
	return s.errand != refresh
}

// foundNoLink reports whether the event is of a link, or service, that its record has no room
// for.
func (s *step) foundNoLink() bool {
	put := s.decision.Put
	return put != nil && s.decision.Verdict == subscriber.Linked && !slices.Contains(put.Links, s.id.AcctSessionID)
}
