package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// How far a watcher may fall behind, in octets: some 1,500 events. And how long it
// rests after a few, which is how often a busy engine wakes it at most.
const (
	watchBacklog = 2 << 20
	watchRest    = 10 * time.Millisecond
)

// Options say what a Manager is made of. All fields are required but those
// marked optional.
type Options struct {
	Store          Store
	Kernel         Kernel
	Groups         []lsn.GroupConfig
	Node           string
	Settings       inspect.Settings // first values, used where the database has none
	Observer       Observer
	Logger         *slog.Logger
	Guards         map[string]guard.Limits // optional: of groups, by name; default unlimited
	Owner          Ownership               // optional; default: there is no other daemon
	By             string                  // optional: this daemon among all, after a restart too; default Node
	Discard        bool                    // optional: end what the configuration lacks, in place of serving it to its end
	ReconcileEvery time.Duration           // optional; default 30 s
	Now            func() time.Time        // optional; default time.Now
}

// A Manager follows the database and makes port blocks and kernel agree.
type Manager struct {
	store    Store
	kernel   Kernel
	node     string
	by       string
	owner    Ownership
	discard  bool
	observer Observer
	log      *slog.Logger
	every    time.Duration
	now      func() time.Time
	events   *inspect.Broadcaster
	clients  clientCounts  // of the records that stand
	ready    chan struct{} // closed once every group was reconciled for the first time
	nudge    chan struct{} // asks for a reconcile now
	hurry    chan struct{} // asks for a look at who is online, at once

	saves     *queue[lifecycle.Write]
	opens     *queue[lifecycle.Work]
	cuts      *queue[lifecycle.Work]
	reaps     *queue[lifecycle.Work]
	lingering *queue[lifecycle.Work] // of reaps: the entries keep coming back
	idlers    *queue[*lifecycle.Drain]
	missing   *queue[absentKey]
	timers    chan struct{} // says that something is due earlier than it was

	regrouping  sync.Mutex // one change of what is served at a time; taken before reconciling
	reconciling sync.Mutex // one reconcile at a time; taken before mu
	searched    bool       // lost is known; guarded by reconciling
	lost        bool       // what the kernel was programmed from is not in the database

	applying    sync.Mutex // one change of settings at a time; taken before mu
	applied     bool       // the kernel has the settings; guarded by applying
	badSettings bool       // it was said that the database's cannot be read; guarded by applying

	mu              wakingLock
	life            *lifecycle.Machine
	engine          *lsn.Engine       // that life changes; read here
	configs         []lsn.GroupConfig // what the engine serves
	groups          map[string]*group
	inside, outside []netip.Prefix             // served since the start, for reloads
	unadopted       map[string]lsn.GroupConfig // groups with what drains of them, until their bindings are in the engine
	prepared        bool                       // it is known what there is to serve
	deposed         error                      // another daemon has taken a group; nil while none has
	observed        wouldRemove                // removals that RemovalOn would have carried out
	settings        inspect.Settings
	guards          map[string]guard.Limits
	settled         bool
	reconciled      time.Time // end of the newest full reconcile
	drifts          int       // differences it found
	redisErr        error     // why accounting cannot be recorded now; nil when it can
	lookErr         error     // why settings or markers cannot be read all the same
	failingSince    time.Time // when one of the two began
	tasks           *errgroup.Group
	tasksCtx        context.Context
}

// group is the state of one LSN group.
type group struct {
	*lifecycle.Group
	position  string      // last feed entry taken; "" before the first sync
	epoch     string      // epoch marker of the database this group trusts
	suspect   bool        // the database lost its marker or went back in time
	adopted   bool        // kernel and stored bindings were taken over
	attempted bool        // that was begun
	begin     int         // which look the paced pass begins with: the one that failed in the last
	synced    bool        // reconciled at least once
	failure   error       // why it could not be taken up, the last time
	early     []absentKey // noticed before that
	moved     chan struct{}
	followed  bool                  // the feed is being read on from position
	unread    unread                // how far that was behind when it was looked at last
	gaps      int                   // times the feed had lost what was not read
	shortage  poolShortage          // what was said of an exhausted pool
	gone      map[netip.Addr]uint64 // tenures that the newest comparison found without a record
	cancel    context.CancelFunc    // ends the following of the feed
	stored    *subscriberdb.Served  // what the database says it is served as, if that is known
}

// New returns a Manager; Run makes it work.
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
	m := &Manager{
		store: o.Store, kernel: o.Kernel, node: o.Node, observer: o.Observer, log: o.Logger,
		by: cmp.Or(o.By, o.Node), owner: o.Owner, discard: o.Discard,
		every: o.ReconcileEvery, now: o.Now, settings: o.Settings,
		events: inspect.NewBroadcaster(watchBacklog, watchRest), ready: make(chan struct{}), nudge: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		saves: newQueue[lifecycle.Write](keepMost), opens: newQueue[lifecycle.Work](takeMost), cuts: newQueue[lifecycle.Work](takeMost),
		reaps: newQueue[lifecycle.Work](takeMost), lingering: newQueue[lifecycle.Work](takeMost), idlers: newQueue[*lifecycle.Drain](takeMost),
		missing: newQueue[absentKey](math.MaxInt), timers: make(chan struct{}, 1),
		engine: engine, configs: o.Groups, groups: map[string]*group{}, guards: o.Guards,
		redisErr: errNotAsked, clients: clientCounts{counts: map[string]int{}},
	}
	m.life = lifecycle.New(engine, effects{m}, o.Kernel.SessionCount)
	m.life.SetRemoval(o.Settings.Removal)
	if m.owner == nil {
		m.owner = alone{}
	}
	if m.every == 0 {
		m.every = 30 * time.Second
	}
	if m.now == nil {
		m.now = time.Now
	}
	for _, c := range o.Groups {
		m.addGroupLocked(c, o.Guards[c.Name])
	}
	return m, nil
}

// addGroupLocked has a group served; in New nobody else has the Manager yet.
func (m *Manager) addGroupLocked(c lsn.GroupConfig, limits guard.Limits) *group {
	g := &group{Group: lifecycle.NewGroup(c, limits), moved: make(chan struct{})}
	m.groups[c.Name] = g
	m.life.Groups().Add(g.Group)
	return g
}

// Ready is closed once everything was restored and reconciled.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Run works until ctx ends, and leaves database and kernel as they stand (I9).
// Where another daemon serves a group it returns ownership.ErrOwned, unless it has
// been ready already: then it stands aside.
func (m *Manager) Run(whole context.Context) error {
	tasks, ctx := errgroup.WithContext(whole)
	for _, task := range []func(context.Context) error{
		m.runSaves, m.runCuts, m.runOpens, m.runReaps, m.runLingering, m.runIdlers, m.runMissing,
		m.runTimers, m.runIdle, m.runVanished, m.runProbes, m.runWatchdog, m.runReconcile, m.runPresence, m.runAlarms,
		m.runOwnership, m.runServed,
	} {
		tasks.Go(func() error { return task(ctx) })
	}
	m.mu.Lock()
	m.tasks, m.tasksCtx = tasks, ctx
	m.mu.Unlock()
	tasks.Go(func() error { return m.runStart(ctx) })
	err := tasks.Wait()
	switch {
	case errors.Is(err, ownership.ErrOwned) && m.restored():
		m.standAside(whole, err)
		return nil
	case errors.Is(err, context.Canceled):
		return nil
	}
	return err
}

// restored reports whether the daemon has been ready.
func (m *Manager) restored() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.settled
}

// followLocked starts the task that follows one group's feed.
func (m *Manager) followLocked(g *group) {
	whole := m.tasksCtx
	ctx, cancel := context.WithCancel(whole)
	g.cancel = cancel
	m.tasks.Go(func() error {
		defer cancel()
		if err := m.follow(ctx, g); ctx.Err() == nil || whole.Err() != nil {
			return err
		}
		return nil // the group is forgotten
	})
}

// groupOfRLocked returns the group that an inside address is looked for in, nil for none.
func (m *Manager) groupOfRLocked(inside netip.Addr) *group {
	if g := m.life.Groups().Of(inside); g != nil {
		return m.groups[g.Name]
	}
	return nil
}

// settleLocked closes Ready once all groups are synced and no slot is busy.
func (m *Manager) settleLocked() {
	if m.settled || m.life.Busy() > 0 {
		return
	}
	for _, g := range m.groups {
		if !g.synced {
			return
		}
	}
	m.settled = true
	close(m.ready)
	m.log.Info("restored and reconciled", "subscribers", m.life.Slots().Len())
}
