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

// What a reconcile may take, however many subscribers there are: a share of the time in
// which it works, or has the database work for it. What there is more to look at takes
// longer until it is found.
const (
	presenceShare   = 0.05 // of looking whether records stand, and elements are as they should be
	everythingShare = 0.02 // of comparing everything
)

// Options say what a Reconciler is made of. All are required.
type Options struct {
	Lock     Lock        // around Life and all groups
	Turn     sync.Locker // one comparison at a time; taken before Lock
	Life     *lifecycle.Machine
	Groups   Groups
	Store    Store
	Kernel   Kernel
	Feed     Feed
	Settings Settings
	Served   Served
	Leases   Leases
	Health   Health
	Observer Observer
	Logger   *slog.Logger
	Node     string
	Every    time.Duration
	Now      func() time.Time
}

// A Reconciler compares database, engine and kernel, and repairs what differs.
type Reconciler struct {
	mu          Lock
	reconciling sync.Locker // one comparison at a time; taken before mu
	life        *lifecycle.Machine
	groups      Groups
	store       Store
	kernel      Kernel
	feed        Feed
	absent      *absences
	settings    Settings
	served      Served
	leases      Leases
	health      Health
	observer    Observer
	log         *slog.Logger
	node        string
	every       time.Duration
	now         func() time.Time

	nudge chan struct{} // asks for a look at everything
	hurry chan struct{} // asks for a look at who is online, at once

	// Guarded by reconciling.
	searched     bool // databaseLost is known
	databaseLost bool // what the kernel was programmed from is not in the database

	// Guarded by mu.
	reconciled time.Time // end of the newest full reconcile
	found      int       // differences it found
}

// New returns a Reconciler; its Tasks make it work.
func New(o Options) *Reconciler {
	r := &Reconciler{
		mu: o.Lock, reconciling: o.Turn, life: o.Life, groups: o.Groups, store: o.Store, kernel: o.Kernel, feed: o.Feed,
		settings: o.Settings, served: o.Served, leases: o.Leases, health: o.Health, observer: o.Observer,
		log: o.Logger, node: o.Node, every: o.Every, now: o.Now, nudge: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
	}
	r.absent = &absences{
		mu: o.Lock, life: o.Life, groups: o.Groups, store: o.Store, health: o.Health, log: o.Logger, now: o.Now,
		compareSoon: r.Soon, missing: queue.New[absentKey](math.MaxInt),
	}
	return r
}

// LookUp has a record looked up that seems to be gone for a reason.
func (r *Reconciler) LookUp(k subscriber.Key, why subscriber.Reason) { r.absent.push(k, why) }

// Tasks are what works until its context ends.
func (r *Reconciler) Tasks() []func(context.Context) error {
	return []func(context.Context) error{r.runReconcile, r.runPresence, r.absent.runVanished, r.absent.runMissing}
}

// runReconcile compares everything now and then, at a bounded rate, and soon when
// somebody asks.
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
			round++ // an audit that failed is due again
			r.observer.Looked(inspect.LookEverything, time.Since(began))
		}
		timer.Reset(r.every)
	}
}

// runPresence looks now and then, and at once when somebody asks, whether a record is
// gone that nobody told of, or the kernel holds something else: this must not take as
// long as a look at everything may.
func (r *Reconciler) runPresence(ctx context.Context) error {
	pace := newPacer(presenceShare, r.every, r.hurry)
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for strays := false; ; { // others changed the kernel since the last look that succeeded
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
			again = pace.hurried && !hurried // who asked did so while the look was under way
		}
	}
}

// lookAtPresence looks at all groups that follow their feed, and reports whether those
// were all there are.
func (r *Reconciler) lookAtPresence(ctx context.Context, how Comparison) (all bool, err error) {
	looked := len(r.syncedGroups())
	_, err = r.Compare(ctx, how)
	r.mu.RLock()
	defer r.mu.RUnlock()
	return looked == len(r.groups.AllRLocked()), err
}

// Soon asks for a reconcile without waiting for it.
func (r *Reconciler) Soon() {
	for _, ask := range []chan struct{}{r.hurry, r.nudge} {
		select {
		case ask <- struct{}{}:
		default: // it is asked for already
		}
	}
}

// LastLocked returns when everything was compared last, and how many differences were found.
func (r *Reconciler) LastLocked() (at time.Time, differences int) { return r.reconciled, r.found }

// Compare compares all groups that follow their feed already, and returns what differed. A
// group that cannot be compared does not keep the others from it.
func (r *Reconciler) Compare(ctx context.Context, how Comparison) ([]inspect.Drift, error) {
	var drifts []inspect.Drift
	var errs []error
	told := map[netip.Addr]bool{} // of addresses in no group: each group's look shows them
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

// reconcile compares one group's records, bindings and kernel elements, and mends what
// differs unless it is a dry run. A database that is not trusted is compared in full, at
// once, and made whole again.
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

// caughtUpWithin bounds how long a comparison waits for the feed.
const caughtUpWithin = 5 * time.Second

// behind waits for the feed to be taken up to a tail that is behind all that was just
// read: what it tells is no drift, for it touches the addresses that it is about. It
// reports whether the feed was not taken so far in good time.
func (r *Reconciler) behind(ctx context.Context, g *Group, tail string) bool {
	ctx, cancel := context.WithTimeout(ctx, caughtUpWithin)
	defer cancel()
	return !r.feed.CaughtUp(ctx, g.Name, tail)
}

// forgotten reports whether the group is served no more since it was listed.
func (r *Reconciler) forgotten(g *Group) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.life.Groups().Named(g.Name) != g.Group
}

// syncedGroups returns the groups that were compared once.
func (r *Reconciler) syncedGroups() []*Group {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.DeleteFunc(r.groups.AllRLocked(), func(g *Group) bool { return !g.synced })
}

// positionOf returns the last entry of the group's feed that was taken.
func (r *Reconciler) positionOf(g *Group) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return g.Position
}

// trustOf returns positionOf, and the epoch of the database that the group trusts.
func (r *Reconciler) trustOf(g *Group) (position, epoch string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return g.Position, g.epoch
}

// removeOrphanElements closes the gates of addresses that no group has: their group was
// taken out before this start, or somebody else put them there.
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

// stepGroupLocked gives every slot of the group its next step.
func (r *Reconciler) stepGroupLocked(g *Group) {
	for _, s := range walk.All(r.mu, r.life.Slots().All()) {
		if s.Group() == g.Name {
			r.life.Step(s, r.now())
		}
	}
}

// checkSuspect sounds the alarm if the database has lost what is known to exist, and
// reports whether it is suspect.
func (r *Reconciler) checkSuspect(g *Group, l *databaseState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.suspectLocked(g, l) {
		r.alarmLocked(g)
	}
	return g.suspect
}

// watchTouches remembers, while a comparison runs, the addresses that changed
// under it: for them what it read is out of date.
func (r *Reconciler) watchTouches(g *Group, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life.Groups().WatchTouches(g.Group, on)
}
