package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/queue"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/walk"
)

// Limits of a reconcile, however many subscribers there are: shares of the time
// in which it works, or the database works for it. With more subscribers,
// differences are found later.
const (
	presenceShare   = 0.05  // looks at presence
	everythingShare = 0.015 // comparisons of everything
)

// Options are the parts of a Reconciler. All fields are required.
type Options struct {
	Lock     Lock        // around Life and all groups
	Turn     sync.Locker // serializes comparisons; taken before Lock
	Life     *lifecycle.Machine
	Groups   Groups
	Store    Store
	Kernel   Kernel
	Feed     Feed
	Settings Settings
	Mappings Mappings
	Served   Served
	Leases   Leases
	Health   Health
	Observer Observer
	Logger   *slog.Logger
	Node     string
	Every    time.Duration
	Now      func() time.Time
}

// A Reconciler compares database, engine and kernel, and repairs differences.
type Reconciler struct {
	mu          Lock
	reconciling sync.Locker // serializes comparisons; taken before mu
	life        *lifecycle.Machine
	groups      Groups
	store       Store
	kernel      Kernel
	feed        Feed
	absent      *absences
	settings    Settings
	mappings    Mappings
	served      Served
	leases      Leases
	health      Health
	observer    Observer
	log         *slog.Logger
	node        string
	every       time.Duration
	now         func() time.Time

	nudge chan struct{} // requests a look at everything
	hurry chan struct{} // requests a look at presence, at once

	// Guarded by reconciling.
	searched     bool // databaseLost is determined
	databaseLost bool // the kernel was programmed from data that the database no longer has

	// Guarded by mu.
	reconciled time.Time // end of the last full comparison
	found      int       // differences it found
}

// New returns a Reconciler; its Tasks do the work.
func New(o Options) *Reconciler {
	r := &Reconciler{
		mu: o.Lock, reconciling: o.Turn, life: o.Life, groups: o.Groups, store: o.Store, kernel: o.Kernel, feed: o.Feed,
		settings: o.Settings, mappings: o.Mappings, served: o.Served, leases: o.Leases, health: o.Health, observer: o.Observer,
		log: o.Logger, node: o.Node, every: o.Every, now: o.Now, nudge: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
	}
	r.absent = &absences{
		mu: o.Lock, life: o.Life, groups: o.Groups, store: o.Store, health: o.Health, log: o.Logger, now: o.Now,
		compareSoon: r.Soon, missing: queue.New[absentKey](math.MaxInt),
	}
	return r
}

// LookUp requests a look-up of a record that seems to be gone for the given
// reason.
func (r *Reconciler) LookUp(k subscriber.Key, why subscriber.Reason) { r.absent.push(k, why) }

// Tasks returns the tasks of the Reconciler; each runs until its context ends.
func (r *Reconciler) Tasks() []func(context.Context) error {
	return []func(context.Context) error{r.runReconcile, r.runPresence, r.absent.runVanished, r.absent.runMissing}
}

// runReconcile compares everything periodically, at a bounded rate, and soon
// after a request.
func (r *Reconciler) runReconcile(ctx context.Context) error {
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
		if _, err := r.Compare(ctx, Comparison{Audit: round%auditEvery == 0, pace: pace}); err != nil && ctx.Err() == nil {
			r.log.Log(ctx, r.health.Severity(ctx), "reconcile failed, next try follows", "error", err)
		} else {
			round++ // a failed audit is due again
			r.observer.Looked(inspect.LookEverything, time.Since(began))
		}
		timer.Reset(r.every)
	}
}

// runPresence checks periodically, and at once after a request, for records
// that vanished without a notice and for unexpected kernel entries. These must
// be found faster than a look at everything takes.
func (r *Reconciler) runPresence(ctx context.Context) error {
	pace := newPacer(presenceShare, r.every, r.hurry)
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for strays := false; ; { // others changed the kernel since the last successful look
		hurried, part := false, Presence
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
			part = PresenceAndStrays
		}
		for again := true; again; hurried = true {
			pace.begin(hurried)
			began := time.Now()
			if looked, err := r.lookAtPresence(ctx, Comparison{Part: part, pace: pace}); err != nil && ctx.Err() == nil {
				r.log.Log(ctx, r.health.Severity(ctx), "reconcile failed, next try follows", "error", err)
			} else if looked {
				strays = false
				r.observer.Looked(inspect.LookPresence, time.Since(began))
			}
			again = pace.hurried && !hurried // the request came during the look
		}
	}
}

// lookAtPresence compares all groups that follow their feed, and reports
// whether those were all groups.
func (r *Reconciler) lookAtPresence(ctx context.Context, how Comparison) (all bool, err error) {
	looked := len(r.syncedGroups())
	_, err = r.Compare(ctx, how)
	r.mu.RLock()
	defer r.mu.RUnlock()
	return looked == len(r.groups.AllRLocked()), err
}

// Soon requests a comparison, without waiting for it.
func (r *Reconciler) Soon() {
	for _, ask := range []chan struct{}{r.hurry, r.nudge} {
		select {
		case ask <- struct{}{}:
		default: // already requested
		}
	}
}

// LastLocked returns the time of the last full comparison, and the number of
// differences that it found.
func (r *Reconciler) LastLocked() (at time.Time, differences int) { return r.reconciled, r.found }

// Compare compares all groups that follow their feed, and returns the
// differences. A group that cannot be compared does not prevent the comparison
// of the others.
func (r *Reconciler) Compare(ctx context.Context, how Comparison) ([]inspect.Drift, error) {
	var drifts []inspect.Drift
	var errs []error
	told := map[netip.Addr]bool{} // addresses in no group: each group's look finds them
	for _, g := range r.syncedGroups() {
		found, err := r.reconcile(ctx, g, how)
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
	if !how.DryRun && how.Part == Everything {
		r.mu.Lock()
		r.reconciled, r.found = r.now(), len(drifts)
		r.mu.Unlock()
	}
	return drifts, nil
}

// reconcile compares one group's records, bindings and kernel entries, and
// repairs differences unless it is a dry run. A suspect database is compared in
// full, at once, and completed.
func (r *Reconciler) reconcile(ctx context.Context, g *Group, how Comparison) ([]inspect.Drift, error) {
	if r.forgotten(g) {
		return nil, nil
	}
	if !how.DryRun {
		if err := r.leases.Check(ctx, g.Name); err != nil {
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
	err = p.look(ctx)
	if err == nil {
		p.end()
	}
	return p.drifts, err
}

// reconcileDoubtful compares a group whose database is suspect, or new.
func (r *Reconciler) reconcileDoubtful(ctx context.Context, g *Group, how Comparison) ([]inspect.Drift, error) {
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
	if err := p.everything(ctx); err != nil || how.DryRun {
		return p.drifts, err
	}
	p.end()
	return p.drifts, r.complete(ctx, g, l, suspect, p.lost)
}

// caughtUpWithin bounds the wait of a comparison for the feed.
const caughtUpWithin = 5 * time.Second

// behind waits until the feed was taken up to a tail, which is after everything
// that was just read. Changes up to there are no drift, because they touch
// their addresses. It returns true if the feed was not taken so far in time.
func (r *Reconciler) behind(ctx context.Context, g *Group, tail string) bool {
	ctx, cancel := context.WithTimeout(ctx, caughtUpWithin)
	defer cancel()
	return !r.feed.CaughtUp(ctx, g.Name, tail)
}

// forgotten reports whether the group is no longer served.
func (r *Reconciler) forgotten(g *Group) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.life.Groups().Named(g.Name) != g.Group
}

// syncedGroups returns the groups that were compared at least once.
func (r *Reconciler) syncedGroups() []*Group {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.DeleteFunc(r.groups.AllRLocked(), func(g *Group) bool { return !g.synced })
}

// trustOf returns the last entry of the group's feed that was taken, and the epoch of the
// database that the group trusts.
func (r *Reconciler) trustOf(g *Group) (position, epoch string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return g.Position, g.epoch
}

// removeOrphanElements closes the gates of addresses in no group: their group
// was removed before this start, or others added the elements.
func (r *Reconciler) removeOrphanElements(ctx context.Context, inside []netip.Addr) error {
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

// stepGroupLocked steps every slot of the group.
func (r *Reconciler) stepGroupLocked(g *Group) {
	for _, s := range walk.All(r.mu, r.life.Slots().All()) {
		if s.Group() == g.Name {
			r.life.Step(s, r.now())
		}
	}
}

// checkSuspect raises the alarm if the database has lost known data, and
// reports whether it is suspect.
func (r *Reconciler) checkSuspect(g *Group, l *databaseState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.suspectLocked(g, l) {
		r.alarmLocked(g)
	}
	return g.suspect
}

// watchTouches turns the recording of changed addresses on or off. During a
// comparison, the data read about them is outdated.
func (r *Reconciler) watchTouches(g *Group, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life.Groups().WatchTouches(g.Group, on)
}
