package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/queue"
	"github.com/sessiond/sessiond/internal/reconcile"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// Options are the parts and settings of a Manager. All fields are required
// except those marked optional.
type Options struct {
	Store          Store
	Kernel         Kernel
	Groups         []lsn.GroupConfig
	Node           string
	Settings       inspect.Settings // first values, used where the database has none
	Observer       Observer
	Logger         *slog.Logger
	Guards         map[string]guard.Limits // optional: of groups, by name; default unlimited
	Owner          Ownership               // optional; default: no other daemon
	By             string                  // optional: this daemon's name, the same after a restart; default Node
	MaxSessions    int                     // optional: nat.max_sessions_per_subscriber, for explanations
	MaxMappings    int                     // optional: learned mappings of all groups; required where a group has any
	Discard        bool                    // optional: end bindings that the configuration does not cover, instead of draining them
	ReconcileEvery time.Duration           // optional; default 30 s
	LookEvery      time.Duration           // optional; between looks for blocks that may be given back; default 10 s
	Now            func() time.Time        // optional; default time.Now
}

// A Manager follows the database and keeps port blocks and kernel in agreement
// with it. It owns the life cycle, the groups and the lock around both, and has
// a part for each purpose.
type Manager struct {
	*sharedState
	health     *databaseHealth
	leases     *groupLeases
	readiness  *readiness
	executors  *executors
	natLog     *natLogKeeper
	idle       *idleWatch
	growth     *growthWatch
	timers     *lifeTimers
	reports    *reports
	settings   *liveSettings
	watchdog   *watchdog
	ports      *portWatch
	alarms     *alarmWatch
	limits     *limitWatch
	served     *servedGroups
	mappings   *mappingKeeper
	asks       *askKeeper
	follower   *feedFollower
	watches    *eventWatches
	reconciler *reconcile.Reconciler
	backend    *Backend
	desk       *Desk

	tasks    *errgroup.Group
	tasksCtx context.Context
}

// Store is the database as a Manager needs it; each part declares its own share
// next to its code. *subscriberdb.DB implements it.
type Store interface {
	accountingProbe
	bindingStore
	natLogStore
	feedStore
	watchStore
	feedAge
	settingsStore
	markerStore
	servedStore
	mappingStore
	reconcile.Store
	backendStore
}

// Kernel is the NAT in the kernel as a Manager needs it: *nftnat.Kernel, or its
// in-memory twin.
type Kernel interface {
	readyKernel
	executorKernel
	limitKernel
	idleKernel
	growthKernel
	pinKernel
	portKernel
	timeoutKernel
	termKernel
	mappingKernel
	reconcile.Kernel
	backendKernel
}

// Observer counts events for metrics. Its methods must not block.
type Observer interface {
	removalObserver
	limitObserver
	reconcile.Observer
}

// New returns a Manager; Run starts its tasks.
func New(o Options) (*Manager, error) {
	switch {
	case o.Store == nil, o.Kernel == nil, o.Observer == nil, o.Logger == nil:
		return nil, errors.New("session: Store, Kernel, Observer and Logger are required")
	case o.Node == "":
		return nil, errors.New("session: Node is required")
	}
	engine, err := lsn.New(o.Groups)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	if o.Owner == nil {
		o.Owner = alone{}
	}
	if o.ReconcileEvery == 0 {
		o.ReconcileEvery = 30 * time.Second
	}
	if o.LookEvery == 0 {
		o.LookEvery = lookEvery
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &sharedState{log: o.Logger, now: o.Now, groups: map[string]*group{}, ready: make(chan struct{})}
	m := &Manager{sharedState: s}
	m.compose(&o)
	s.life = lifecycle.New(engine, &effects{m.reports, m.executors, m.idle, m.growth, m.timers, m.mappings, m.asks, m.lookUp}, o.Kernel.SessionCount)
	s.life.SetRemoval(o.Settings.Removal)
	if m.natLog.logged {
		lifecycle.LogHolders(s.life)
	}
	m.reconciler = m.newReconciler(&o)
	m.follower.reconciler = m.reconciler
	m.backend = &Backend{
		shared: s, store: o.Store, kernel: o.Kernel, node: o.Node, readiness: m.readiness,
		reports: m.reports, settings: m.settings, follower: m.follower, served: m.served, reconciler: m.reconciler,
		ports: m.ports, mappings: m.mappings, configured: m.served.configured, watches: m.watches,
	}
	m.desk = &Desk{Backend: m.backend, maxSessions: o.MaxSessions, walks: make(chan struct{}, 1)}
	for _, c := range o.Groups {
		s.addGroupLocked(c, o.Guards[c.Name])
	}
	return m, nil
}

// compose creates all parts except the Reconciler.
func (m *Manager) compose(o *Options) {
	s := m.sharedState
	m.health = &databaseHealth{store: o.Store, log: o.Logger, now: o.Now, back: m.compareSoon, probeErr: errNotAsked}
	m.leases = &groupLeases{Ownership: o.Owner, log: o.Logger}
	m.readiness = &readiness{sharedState: s, health: m.health, leases: m.leases}
	m.natLog = &natLogKeeper{sharedState: s, store: o.Store, health: m.health, leases: m.leases, logged: o.Store.LogsNAT(), wake: make(chan struct{}, 1)}
	m.executors = newExecutors(s, o.Kernel, o.Store, m.health, m.leases, m.natLog)
	m.idle = &idleWatch{sharedState: s, kernel: o.Kernel, asks: queue.New[*lifecycle.Drain](batchMost)}
	m.growth = &growthWatch{
		sharedState: s, kernel: o.Kernel, every: o.LookEvery, parts: queue.New[*lifecycle.Part](batchMost), refused: newRefusedLooks(), narrowed: map[netip.Addr]struct{}{}, most: narrowedMost,
		pins: &portPins{sharedState: s, kernel: o.Kernel, work: m.executors, moves: queue.New[lifecycle.Work](batchMost)},
	}
	m.timers = &lifeTimers{sharedState: s, wake: make(chan struct{}, 1)}
	m.ports = newPortWatch(s, o.Kernel)
	m.reports = &reports{
		sharedState: s, ports: m.ports, kernel: o.Kernel, observer: o.Observer,
		events: inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: rand.Uint64(), Octets: eventOctets, Rest: watchRest, Keep: eventsKept}),
		places: &eventPlaces{sharedState: s}, clients: clientCounts{counts: map[string]int{}},
		endings: newEndingLog(endingsMost, o.Now()), refused: newRefusalMemory(refusedMost),
	}
	m.settings = &liveSettings{sharedState: s, store: o.Store, kernel: o.Kernel, inForce: o.Settings}
	m.watchdog = &watchdog{sharedState: s, store: o.Store, health: m.health, settings: m.settings, compareSoon: m.compareSoon}
	m.alarms = &alarmWatch{sharedState: s, store: o.Store}
	m.limits = &limitWatch{sharedState: s, kernel: o.Kernel, observer: o.Observer, reports: m.reports, told: map[netip.Addr]limitTold{}}
	m.mappings = &mappingKeeper{
		sharedState: s, store: o.Store, kernel: o.Kernel, leases: m.leases, ends: queue.New[sessionEnd](batchMost),
		endsLeft: map[netip.Addr]int{}, ended: map[nat.Endpoint]int{}, unsure: map[string]bool{},
		former: map[string][]nat.Forward{}, loaded: map[string]bool{}, moved: map[netip.Addr]time.Time{},
	}
	m.asks = newAskKeeper(m.mappings)
	m.executors.applied = m.asks.applied
	m.served = &servedGroups{
		mappings: m.mappings, natLog: m.natLog, sharedState: s, store: o.Store, kernel: o.Kernel, health: m.health, leases: m.leases, timers: m.timers, follow: m.followLocked, lost: m.reports.loseLocked,
		by: cmp.Or(o.By, o.Node), discard: o.Discard, mostMappings: o.MaxMappings, file: o.Groups, configs: o.Groups, changes: map[string]poolChanges{}, guards: o.Guards,
	}
	m.growth.room = m.served.keepPinned
	m.follower = &feedFollower{
		sharedState: s, store: o.Store, node: o.Node, kernel: o.Kernel, health: m.health, served: m.served, reports: m.reports, natLog: m.natLog,
	}
	m.watches = &eventWatches{
		sharedState: s, store: o.Store, readiness: m.readiness, reports: m.reports, follower: m.follower, reads: make(chan struct{}, readsAtOnce),
	}
}

// newReconciler creates the Reconciler, which needs most other parts.
func (m *Manager) newReconciler(o *Options) *reconcile.Reconciler {
	s := m.sharedState
	return reconcile.New(reconcile.Options{
		Lock: &s.mu, Turn: &s.reconciling, Life: s.life, Groups: s, Store: o.Store, Kernel: o.Kernel,
		Feed: m.follower, Mappings: m.mappings, Settings: m.settings, Served: m.served, Leases: m.leases, Health: m.health,
		Observer: o.Observer, Logger: o.Logger, Node: o.Node, Every: o.ReconcileEvery, Now: o.Now,
	})
}

// compareSoon requests a comparison, without waiting for it.
func (m *Manager) compareSoon() { m.reconciler.Soon() }

// lookUp requests a look-up of a record that seems to be gone for the given
// reason.
func (m *Manager) lookUp(k subscriber.Key, why subscriber.Reason) { m.reconciler.LookUp(k, why) }

// Ready is closed once everything was restored and reconciled.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Run works until ctx ends, and leaves database and kernel as they are (I9). If
// another daemon serves a group it returns ownership.ErrOwned, unless this one
// has been ready already: then it stands aside.
func (m *Manager) Run(whole context.Context) error {
	tasks, ctx := errgroup.WithContext(whole)
	for _, task := range slices.Concat(m.executors.tasks(), m.reconciler.Tasks(), []func(context.Context) error{
		m.idle.run, m.idle.runAsks, m.growth.run, m.growth.runParts, m.growth.pinAll, m.growth.pins.run, m.timers.run, m.health.run, m.watchdog.run, m.alarms.run, m.limits.run, m.ports.run, m.leases.run, m.served.run, m.mappings.run, m.mappings.runEnds, m.asks.run, m.asks.runAnswers, m.reports.seedEndings, m.natLog.run, m.natLog.trim,
	}) {
		tasks.Go(func() error { return task(ctx) })
	}
	m.mu.Lock()
	m.tasks, m.tasksCtx = tasks, ctx
	m.mu.Unlock()
	tasks.Go(func() error { return m.served.start(ctx) })
	err := tasks.Wait()
	switch {
	case errors.Is(err, ownership.ErrOwned) && m.restored():
		m.leases.standAside(whole, err)
		return nil
	case errors.Is(err, context.Canceled):
		return nil
	}
	return err
}

// followLocked starts the task that follows one group's feed.
func (m *Manager) followLocked(g *group) {
	whole := m.tasksCtx
	ctx, cancel := context.WithCancel(whole)
	g.cancel = cancel
	m.tasks.Go(func() error {
		defer cancel()
		if err := m.follower.follow(ctx, g); ctx.Err() == nil || whole.Err() != nil {
			return err
		}
		return nil // the group was forgotten
	})
}

// SetGroups applies a changed configuration without touching a session: new
// groups and prefixes are served, removed ones keep their bindings and allocate
// no more. It refuses to move an inside address that is in use to another
// group, because its record and its block would stay behind.
func (m *Manager) SetGroups(ctx context.Context, configs []lsn.GroupConfig) error {
	return m.served.set(ctx, configs)
}

// Groups returns the configuration in force, without the changes of pools at run time.
func (m *Manager) Groups() []lsn.GroupConfig { return m.served.configured() }

// Inside returns the inside prefixes of every served group, including those
// removed from the configuration.
func (m *Manager) Inside() map[string][]netip.Prefix { return m.served.insidePrefixes() }

// SetGuards changes the limits of the named groups.
func (m *Manager) SetGuards(limits map[string]guard.Limits) { m.served.setGuards(limits) }

// OwnsNAT reports whether the group's lease is ours.
func (m *Manager) OwnsNAT(group string) bool { return m.leases.Holds(group) }

// NotReady returns the reason that the daemon is not ready; nil if it is.
func (m *Manager) NotReady() error { return m.readiness.notReady() }

// Quiet waits until no executor works for a slot and all bindings are stored.
func (m *Manager) Quiet(ctx context.Context) error {
	for {
		m.mu.RLock()
		busy := m.life.Busy() + m.life.Writes().Len()
		m.mu.RUnlock()
		if busy == 0 {
			return nil
		}
		if err := clock.Sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%d addresses and bindings are being worked on: %w", busy, err)
		}
	}
}

// sharedState is the state that the parts of a Manager share: the life cycle
// and the groups, and the lock around both.
type sharedState struct {
	log *slog.Logger
	now func() time.Time

	reconciling sync.Mutex // serializes comparisons; taken before mu

	mu      wakingLock
	life    *lifecycle.Machine
	groups  map[string]*group
	settled bool          // every group was reconciled once
	ready   chan struct{} // closed when settled
}

// group is the state of one LSN group.
type group struct {
	*reconcile.Group
	failure  error // of the last attempt to take it up
	moved    chan struct{}
	followed bool                 // the feed is being read, from its position on
	takenUp  bool                 // it was before
	unread   unread               // how far the position was behind at the last look
	gaps     int                  // times the feed had lost unread entries
	shortage poolShortage         // the last log line about an exhausted pool
	refusals int                  // subscribers that got no further block, since the last log line about them
	refused  time.Time            // that line
	beside   besideFeed           // the changes that a comparison found beside the feed
	cancel   context.CancelFunc   // stops reading the feed
	stored   *subscriberdb.Served // the Served in the database, if known
	pools    *poolChanges         // the changes of pools in the database, if known
}

// live returns the number of live bindings.
func (g *group) live() int {
	return g.In(lifecycle.Saved) + g.In(lifecycle.Open) + g.In(lifecycle.Returned) + g.In(lifecycle.Draining) + g.In(lifecycle.Cut)
}

// addGroupLocked adds a group to serve. New calls it without the lock, because
// no one else has the Manager yet.
func (s *sharedState) addGroupLocked(c lsn.GroupConfig, limits guard.Limits) *group {
	g := &group{Group: reconcile.NewGroup(c, limits), moved: make(chan struct{})}
	s.groups[c.Name] = g
	s.life.Groups().Add(g.Group.Group)
	return g
}

// restored reports whether the daemon has been ready.
func (s *sharedState) restored() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.settled
}

// groupOfRLocked returns the group whose prefixes contain an inside address,
// nil for none.
func (s *sharedState) groupOfRLocked(inside netip.Addr) *group {
	if g := s.life.Groups().Of(inside); g != nil {
		return s.groups[g.Name]
	}
	return nil
}

// settleLocked closes Ready once all groups are synced and no slot is busy.
func (s *sharedState) settleLocked() {
	if s.settled || s.life.Busy() > 0 {
		return
	}
	for _, g := range s.groups {
		if !g.Synced() {
			return
		}
	}
	s.settled = true
	close(s.ready)
	s.log.Info("restored and reconciled", "subscribers", s.life.Slots().Len())
}

// NamedRLocked implements reconcile.Groups.
func (s *sharedState) NamedRLocked(name string) *reconcile.Group {
	if g := s.groups[name]; g != nil {
		return g.Group
	}
	return nil
}

// AllRLocked implements reconcile.Groups.
func (s *sharedState) AllRLocked() []*reconcile.Group {
	groups := make([]*reconcile.Group, 0, len(s.groups))
	for _, g := range s.groups {
		groups = append(groups, g.Group)
	}
	return groups
}

// syncedGroups returns the groups that were reconciled once.
func (s *sharedState) syncedGroups() []*group {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var groups []*group
	for _, g := range s.groups {
		if g.Synced() {
			groups = append(groups, g)
		}
	}
	return groups
}

// positionOf returns the last entry of the group's feed that was taken.
func (s *sharedState) positionOf(g *group) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return g.Position
}

// epochOf returns the epoch marker of the database that the group trusts.
func (s *sharedState) epochOf(g *group) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return g.Epoch()
}
