package subscriberdb

import (
	"context"
	"errors"
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Record durably applies accounting events in the order given, many in one
// round trip. It returns one error for each event: nil means that Redis has
// taken it, in every group that it concerns. Applying an event again is
// harmless, so an event that failed may be sent again.
func (db *DB) Record(ctx context.Context, events []subscriber.Event) []error {
	groups := db.groups.Load()
	jobs := make([]*job, len(events))
	for i := range events {
		jobs[i] = db.newJob(groups, events[i])
	}
	for _, w := range waves(jobs) {
		db.performJobs(ctx, w)
	}
	errs := make([]error, len(events))
	for i, j := range jobs {
		errs[i] = j.finish(db)
	}
	return errs
}

// job is one event on its way through the groups that it concerns.
type job struct {
	event subscriber.Event
	main  *step   // in the event's own group; nil for an event without one
	guess bool    // main started from the cache, which also knows that the session is nowhere else
	rest  []*step // in the other groups
}

func (db *DB) newJob(groups *groupTable, event subscriber.Event) *job {
	event.Inside = event.Inside.Unmap()
	j := &job{event: event}
	ev := &j.event
	home := groups.of(ev.Inside)
	for i := range groups.groups {
		g := &groups.groups[i]
		s := db.eventStep(g, ev, scopeIn(g, home))
		if g == home {
			j.main = s
			j.guess = db.guess(s)
		} else {
			j.rest = append(j.rest, s)
		}
	}
	if !isRestart(ev) {
		j.rest = append(j.rest, db.eventStep(&groups.reserved, ev, scopeInReserved(home)))
	}
	return j
}

func isRestart(ev *subscriber.Event) bool {
	return ev.Kind == subscriber.EventAccountingOn || ev.Kind == subscriber.EventAccountingOff
}

func scopeIn(g, home *Group) subscriber.Scope {
	switch home {
	case g:
		return subscriber.Here
	case nil:
		return subscriber.NoAddress
	}
	return subscriber.Elsewhere
}

func scopeInReserved(home *Group) subscriber.Scope {
	if home == nil {
		return subscriber.Recorded
	}
	return subscriber.Elsewhere
}

// eventStep is what the event does in one group. Outside its own group the
// address of the event says nothing.
func (db *DB) eventStep(g *Group, ev *subscriber.Event, scope subscriber.Scope) *step {
	seen := *ev
	if scope != subscriber.Here || isRestart(ev) {
		seen.Inside = netip.Addr{}
	}
	s := &step{
		group: g, scope: scope, id: ev.SessionID, inside: seen.Inside,
		usesRestart: ev.Kind != subscriber.EventStop && g.Name != reserved,
		decide:      func(v subscriber.View) subscriber.Decision { return subscriber.Decide(v, seen) },
	}
	if s.usesRestart {
		s.restart = db.cache.restart(restartKey(g.Name, s.id))
	}
	return s
}

// guess starts the step from what the last commit of the session left behind.
// It reports whether the session is known to be open at the step's address.
func (db *DB) guess(s *step) bool {
	known, ok := db.cache.get(sessionKey(s.group.Name, s.id))
	if !ok {
		return false
	}
	s.session = known.session
	if a := s.elsewhere(); a.IsValid() {
		s.current = known.record
		return false
	}
	s.holder = known.record
	return true
}

// performJobs carries out one wave. The other groups are asked in the same
// round trip, unless the session is known to be in its own group only.
func (db *DB) performJobs(ctx context.Context, jobs []*job) {
	var steps []*step
	for _, j := range jobs {
		if j.main != nil {
			steps = append(steps, j.main)
		}
		if !j.guess {
			steps = append(steps, j.rest...)
		}
	}
	db.perform(ctx, steps)
	steps = steps[:0]
	for _, j := range jobs {
		if j.guess && j.main.surprised {
			steps = append(steps, j.rest...)
		} else if j.guess {
			j.rest = nil
		}
	}
	db.perform(ctx, steps)
}

// finish reports the event's outcome and remembers where it left the session.
func (j *job) finish(db *DB) error {
	steps := j.rest
	if j.main != nil {
		steps = append(steps[:len(steps):len(steps)], j.main)
	}
	var errs []error
	for _, s := range steps {
		if s.err != nil {
			errs = append(errs, s.err)
			continue
		}
		s.report(db)
	}
	j.learn(db, len(errs) == 0)
	return errors.Join(errs...)
}

// learn keeps the state of a session that is open in the event's own group and,
// as every group has said, nowhere else.
func (j *job) learn(db *DB, complete bool) {
	if j.main == nil {
		return
	}
	key := sessionKey(j.main.group.Name, j.main.id)
	d := &j.main.decision
	if !complete || d.Put == nil || d.Session == nil {
		db.cache.forget(key)
		return
	}
	db.cache.put(key, remembered{session: formatState(d.Session), record: d.Put})
}

// report tells the observer, and SweepRestarts if there is work for it.
func (s *step) report(db *DB) {
	if s.decision.Verdict != subscriber.NotHere {
		db.observe(s.group.Name, s.decision.Verdict)
	}
	if s.decision.Restart == nil {
		return
	}
	db.cache.setRestart(restartKey(s.group.Name, s.id), formatTime(s.decision.Restart.At)+" "+s.decision.Restart.ID)
	select {
	case db.restarted <- struct{}{}:
	default:
	}
}
