package session

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/walk"
)

// What a reconcile may take, however many subscribers there are: a share of the time in
// which it works, or has the database work for it. What there is more to look at takes
// longer until it is found.
const (
	presenceShare   = 0.05 // of looking whether records stand, and elements are as they should be
	everythingShare = 0.02 // of comparing everything
)

// A reconciler compares database, engine and kernel, and repairs what differs.
type reconciler struct {
	*sharedState
	store    reconcileStore
	kernel   reconcileKernel
	observer driftObserver
	node     string
	every    time.Duration
	health   *databaseHealth
	leases   *groupLeases
	settings *liveSettings
	absent   *absences
	served   *servedGroups
	follower *feedFollower

	nudge chan struct{} // asks for a reconcile now
	hurry chan struct{} // asks for a look at who is online, at once

	// Guarded by reconciling.
	searched     bool // databaseLost is known
	databaseLost bool // what the kernel was programmed from is not in the database

	// Guarded by mu.
	reconciled time.Time // end of the newest full reconcile
	found      int       // differences it found
}

// runReconcile compares everything now and then, at a bounded rate, and soon when
// somebody asks.
func (r *reconciler) runReconcile(ctx context.Context) error {
	pace := newPacer(everythingShare, r.every, nil)
	timer := time.NewTimer(r.every)
	defer timer.Stop()
	for round := 1; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-r.nudge:
		}
		pace.begin(false)
		began := time.Now()
		if _, err := r.reconcileAll(ctx, comparison{audit: round%auditEvery == 0, pace: pace}); err != nil && ctx.Err() == nil {
			r.log.Log(ctx, r.health.severity(ctx), "reconcile failed, next try follows", "err", err)
		} else {
			round++ // an audit that failed is due again
			r.observer.Looked(inspect.LookEverything, time.Since(began))
		}
		timer.Reset(r.every)
	}
}

// runPresence looks now and then, and at once when somebody asks, whether a record is
// gone that nobody told of, or the kernel holds something else: this must not take as
// long as a look at everything may.
func (r *reconciler) runPresence(ctx context.Context) error {
	pace := newPacer(presenceShare, r.every, r.hurry)
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for strays := false; ; { // others changed the kernel since the last look that succeeded
		hurried, look := false, (*pass).presence
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-r.kernel.Changed():
			strays = true
		case <-r.hurry:
			hurried = true
		}
		if strays {
			look = (*pass).presenceAndStrays
		}
		for again := true; again; hurried = true {
			pace.begin(hurried)
			began := time.Now()
			if looked, err := r.lookAtPresence(ctx, pace, look); err != nil && ctx.Err() == nil {
				r.log.Log(ctx, r.health.severity(ctx), "reconcile failed, next try follows", "err", err)
			} else if looked {
				strays = false
				r.observer.Looked(inspect.LookPresence, time.Since(began))
			}
			again = pace.hurried && !hurried // who asked did so while the look was under way
		}
	}
}

// lookAtPresence looks at all groups that follow their feed, and reports whether those
// were all there are.
func (r *reconciler) lookAtPresence(ctx context.Context, pace *pacer, look func(*pass, context.Context) error) (all bool, err error) {
	var errs []error
	groups := r.syncedGroups()
	for _, g := range groups {
		_, err := r.reconcile(ctx, g, comparison{pace: pace}, look)
		errs = append(errs, err)
	}
	return len(groups) == len(r.allGroups()), errors.Join(errs...)
}

// soon asks for a reconcile without waiting for it.
func (r *reconciler) soon() {
	signal(r.hurry)
	signal(r.nudge)
}

// reconcileAll compares all groups that follow their feed already. One that
// cannot be compared does not keep the others from it.
func (r *reconciler) reconcileAll(ctx context.Context, how comparison) ([]inspect.Drift, error) {
	var drifts []inspect.Drift
	var errs []error
	told := map[netip.Addr]bool{} // of addresses in no group: each group's look shows them
	for _, g := range r.syncedGroups() {
		found, err := r.reconcile(ctx, g, how, (*pass).everything)
		errs = append(errs, err)
		for _, d := range found {
			if d.Group == "" {
				if told[d.Inside] {
					continue
				}
				told[d.Inside] = true
			}
			drifts = append(drifts, d)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return drifts, err
	}
	if !how.dryRun {
		r.mu.Lock()
		r.reconciled, r.found = r.now(), len(drifts)
		r.mu.Unlock()
	}
	return drifts, nil
}

// reconcile compares one group's records, bindings and kernel elements, as far as part
// looks, and mends what differs unless it is a dry run. A database that is not trusted
// is compared in full, at once, and made whole again.
func (r *reconciler) reconcile(ctx context.Context, g *group, how comparison, part func(*pass, context.Context) error) ([]inspect.Drift, error) {
	if r.forgotten(g) {
		return nil, nil
	}
	if !how.dryRun {
		if err := r.leases.check(ctx, g.Name); err != nil {
			return nil, err
		}
	}
	l, err := r.lookAt(ctx, g)
	if err != nil {
		return nil, err
	}
	if r.checkSuspect(g, l) || !l.marked {
		return r.reconcileDoubtful(ctx, g, how)
	}
	p := r.newPass(g, how)
	err = part(p, ctx)
	if err == nil {
		p.end()
	}
	return p.drifts, err
}

// reconcileDoubtful compares a group whose database is suspect, or new.
func (r *reconciler) reconcileDoubtful(ctx context.Context, g *group, how comparison) ([]inspect.Drift, error) {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if r.forgotten(g) {
		return nil, nil
	}
	l, err := r.lookAt(ctx, g)
	if err != nil {
		return nil, err
	}
	suspect := r.checkSuspect(g, l)
	how.pace = nil
	p := r.newPass(g, how)
	p.alone = true
	if err := p.everything(ctx); err != nil || how.dryRun {
		return p.drifts, err
	}
	p.end()
	return p.drifts, r.complete(ctx, g, l, suspect, p.lost)
}

// caughtUpWithin bounds how long a comparison waits for the feed.
const caughtUpWithin = 5 * time.Second

// behind waits for the feed to be taken up to a tail that is behind all that was just
// read: what it tells is no drift, for it touches the addresses that it is about. It
// reports whether the feed was not taken so far in good time.
func (r *reconciler) behind(ctx context.Context, g *group, tail string) bool {
	ctx, cancel := context.WithTimeout(ctx, caughtUpWithin)
	defer cancel()
	return !r.follower.caughtUp(ctx, g, tail, true)
}

// removeOrphanElements closes the gates of addresses that no group has: their group was
// taken out before this start, or somebody else put them there.
func (r *reconciler) removeOrphanElements(ctx context.Context, inside []netip.Addr) error {
	if len(inside) == 0 {
		return nil
	}
	r.log.Warn("kernel elements of addresses in no configured group, removed", "addresses", len(inside))
	closed := make([]nat.Entry, len(inside))
	for i, a := range inside {
		closed[i].Inside = a
	}
	if err := r.kernel.Apply(ctx, closed); err != nil {
		return err
	}
	_, err := r.kernel.Reap(ctx, inside)
	return err
}

// stepGroupLocked gives every slot of the group its next step.
func (r *reconciler) stepGroupLocked(g *group) {
	for _, s := range walk.All(&r.mu, r.life.Slots().All()) {
		if s.Group() == g.Name {
			r.life.Step(s, r.now())
		}
	}
}

// checkSuspect sounds the alarm if the database has lost what is known to exist, and
// reports whether it is suspect.
func (r *reconciler) checkSuspect(g *group, l *databaseState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.suspectLocked(g, l) {
		r.alarmLocked(g)
	}
	return g.suspect
}

// watchTouches remembers, while a comparison runs, the addresses that changed
// under it: for them what it read is out of date.
func (r *reconciler) watchTouches(g *group, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life.Groups().WatchTouches(g.Group, on)
}
