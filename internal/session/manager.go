package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/subscriber"
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
	ready    chan struct{} // closed once every group was reconciled for the first time
	nudge    chan struct{} // asks for a reconcile now
	hurry    chan struct{} // asks for a look at who is online, at once

	saves     *queue[save]
	opens     *queue[work]
	cuts      *queue[work]
	reaps     *queue[work]
	lingering *queue[work] // of reaps: the entries keep coming back
	idlers    *queue[*drainage]
	missing   *queue[missing]
	timers    *timers

	regrouping  sync.Mutex // one change of what is served at a time; taken before reconciling
	reconciling sync.Mutex // one reconcile at a time; taken before mu
	searched    bool       // lost is known; guarded by reconciling
	lost        bool       // what the kernel was programmed from is not in the database

	applying    sync.Mutex // one change of settings at a time; taken before mu
	applied     bool       // the kernel has the settings; guarded by applying
	badSettings bool       // it was said that the database's cannot be read; guarded by applying

	mu              monitor
	engine          *lsn.Engine
	configs         []lsn.GroupConfig // what the engine serves
	groups          map[string]*group
	inside, outside []netip.Prefix             // served since the start, for reloads
	unadopted       map[string]lsn.GroupConfig // groups with what drains of them, until their bindings are in the engine
	prepared        bool                       // it is known what there is to serve
	deposed         error                      // another daemon has taken a group; nil while none has
	slots           slotIndex
	online          onlineIndex // of the slots whose record stands
	draining        map[netip.Addr]*drainage
	graces          graceIndex
	observed        observed          // what RemovalOn would have removed
	unsaved         map[lsn.Block]int // writes to stored bindings that are under way
	settings        inspect.Settings
	guards          map[string]guard.Limits
	holdsSeen       time.Time // when the timers look at the holds next
	busy            int       // slots an executor works for
	comparing       int       // groups whose touched is kept
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
	name      string
	config    lsn.GroupConfig
	position  string // last feed entry taken; "" before the first sync
	epoch     string // epoch marker of the database this group trusts
	suspect   bool   // the database lost its marker or went back in time
	online    int    // subscribers
	lost      int    // of these, records written back that no BNG has confirmed yet
	guard     *guard.Guard
	held      map[subscriber.Reason]int // subscribers whose removal is held
	phases    phaseCounts
	adopted   bool      // kernel and stored bindings were taken over
	attempted bool      // that was begun
	begin     int       // which look the paced pass begins with: the one that failed in the last
	synced    bool      // reconciled at least once
	failure   error     // why it could not be taken up, the last time
	early     []missing // noticed before that
	moved     chan struct{}
	followed  bool                               // the feed is being read on from position
	unread    unread                             // how far that was behind when it was looked at last
	gaps      int                                // times the feed had lost what was not read
	shortage  poolShortage                       // what was said of an exhausted pool
	gone      map[netip.Addr]uint64              // tenures that the newest comparison found without a record
	recent    map[netip.Addr][]subscriber.Change // see recallLocked; nil but while the feed is taken up anew
	touched   map[netip.Addr]struct{}            // addresses that changed during a reconcile; nil outside
	inside    []netip.Prefix                     // whose addresses are looked for here; see serveLocked
	cancel    context.CancelFunc                 // ends the following of the feed
	stored    *subscriberdb.Served               // what the database says it is served as, if that is known
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
		saves: newQueue[save](keepMost), opens: newQueue[work](takeMost), cuts: newQueue[work](takeMost),
		reaps: newQueue[work](takeMost), lingering: newQueue[work](takeMost), idlers: newQueue[*drainage](takeMost),
		missing: newQueue[missing](math.MaxInt), timers: newTimers(),
		engine: engine, configs: o.Groups, groups: map[string]*group{}, slots: newSlotIndex(), online: newOnlineIndex(),
		draining: map[netip.Addr]*drainage{}, graces: graceIndex{}, unsaved: map[lsn.Block]int{}, guards: o.Guards,
		redisErr: errNotAsked,
	}
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
		m.groups[c.Name] = newGroup(c, o.Guards[c.Name])
	}
	return m, nil
}

func newGroup(c lsn.GroupConfig, limits guard.Limits) *group {
	return &group{
		name: c.Name, config: c, inside: slices.Clone(c.Inside), moved: make(chan struct{}),
		guard: guard.New(limits), held: map[subscriber.Reason]int{},
	}
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

// groupOfLocked returns the group that serves the inside address.
func (m *Manager) groupOfLocked(inside netip.Addr) *group {
	var found *group
	bits := -1
	for _, g := range m.groups {
		for _, p := range g.inside {
			if p.Bits() > bits && p.Contains(inside) {
				found, bits = g, p.Bits()
			}
		}
	}
	return found
}

// stepLocked gives a slot its next step, if it needs one and no executor works
// for it already, and forgets it when nothing of it is left.
func (m *Manager) stepLocked(s *slot) {
	if s.busy {
		return
	}
	switch next(m.factsLocked(s)) {
	case allocate:
		m.allocateLocked(s)
	case flush, reap:
		m.workLocked(s)
		give(m, m.reaps, s.work())
	case program:
		m.workLocked(s)
		give(m, m.opens, s.work())
	case drain:
		m.drainLocked(s)
	case askIdle:
		m.askIdleLocked(s)
	case resume:
		m.resumeLocked(s)
	case closeGate:
		m.closeLocked(s)
	}
	if s.gone() {
		m.forgetLocked(s)
	}
}

func (m *Manager) factsLocked(s *slot) facts {
	f := facts{
		phase:   s.phase,
		online:  s.online,
		own:     s.tenure == s.boundTenure && !s.stray,
		stray:   s.stray,
		removal: m.settings.Removal == inspect.RemovalOn,
		grace:   m.inGraceLocked(s),
	}
	f.same = f.grace && f.online && m.sameSubscriberLocked(s)
	switch s.phase {
	case idle:
		f.pending = s.online && m.engine.IsPending(s.group(), s.inside())
	case saved:
		if !s.flushed {
			f.sessions = m.kernel.SessionCount(s.inside())
		}
	case draining:
		d := m.draining[s.inside()]
		f.empty = d != nil && d.empty
	}
	return f
}

func (m *Manager) workLocked(s *slot) {
	s.busy = true
	m.busy++
}

// restLocked ends an executor's work for the slot.
func (m *Manager) restLocked(s *slot) {
	s.busy = false
	m.busy--
	m.touchLocked(s)
}

// touchLocked notes for a comparison that runs that the slot's address changed.
func (m *Manager) touchLocked(s *slot) {
	if m.comparing > 0 {
		m.touchKeyLocked(s.key())
	}
}

func (m *Manager) touchKeyLocked(k subscriber.Key) {
	if g := m.groups[k.Group]; g != nil && g.touched != nil {
		g.touched[k.Inside] = struct{}{}
	}
}

// saveLocked has a change of a binding stored.
func (m *Manager) saveLocked(s save) {
	m.unsaved[s.binding.Block]++
	give(m, m.saves, s)
}

// allocateLocked takes a block for the slot. With the pool exhausted the
// subscriber stays pending and is served when a block comes free (NAT-37).
func (m *Manager) allocateLocked(s *slot) {
	b, err := m.engine.Allocate(s.group(), holderOf(&s.packed), m.now())
	if err != nil {
		if live, ok := m.engine.Live(s.group(), s.inside()); ok { // served while it waited
			b, err = live, nil
		}
	}
	switch {
	case errors.Is(err, lsn.ErrExhausted): // tellExhausted says so, for all who wait
		m.publishLocked(inspect.EventPending, s)
	case err != nil:
		m.log.Error("allocate block", "group", s.group(), "inside", s.inside(), "err", err)
	default:
		m.boundLocked(s, b)
	}
}

// boundLocked gives the slot its new binding and has it stored: bindings are in
// the database before they are in the kernel.
func (m *Manager) boundLocked(s *slot, b lsn.Binding) {
	s.block, s.boundTenure, s.over, s.flushed = b.Block, s.tenure, nil, false
	m.enterLocked(s, saved)
	m.workLocked(s)
	m.saveLocked(save{binding: b, slot: s})
}

// phaseCounts are how many slots with a binding are in each phase.
type phaseCounts [cut + 1]int

// enterLocked takes a slot to its next phase. Strays have no binding to count.
func (m *Manager) enterLocked(s *slot, p phase) {
	if g := m.groups[s.group()]; g != nil && !s.stray {
		g.phases[s.phase]--
		g.phases[p]++
	}
	s.phase = p
}

func (m *Manager) drainLocked(s *slot) {
	b, err := m.engine.Drain(s.group(), s.inside(), s.over.at)
	if err != nil {
		m.log.Error("drain binding", "group", s.group(), "inside", s.inside(), "err", err)
		return
	}
	if until := s.over.graceUntil; !until.IsZero() {
		b = m.markGraceLocked(s, until)
	}
	m.saveLocked(save{binding: b})
	m.workLocked(s)
	m.enterLocked(s, draining)
	m.drainsFromNowLocked(s.inside())
	give(m, m.cuts, s.work())
}

func (m *Manager) closeLocked(s *slot) {
	if !s.stray {
		if _, err := m.engine.Cut(s.group(), s.inside(), s.over.at); err != nil {
			m.log.Error("cut binding", "group", s.group(), "inside", s.inside(), "err", err)
		}
		s.over.elements = s.expected().Elements()
	}
	delete(m.draining, s.inside())
	m.workLocked(s)
	m.enterLocked(s, cut)
	give(m, m.cuts, s.work())
}

// releaseLocked puts the block of a reaped slot into quarantine.
func (m *Manager) releaseLocked(s *slot, deleted int) {
	m.enterLocked(s, idle)
	if s.stray {
		s.stray, s.block = false, lsn.Block{}
		return
	}
	b, err := m.engine.Hold(s.group(), s.inside(), m.now())
	if err != nil {
		m.log.Error("hold block", "group", s.group(), "inside", s.inside(), "err", err)
		return
	}
	m.publishEndedLocked(s, b, deleted)
	s.block, s.over = lsn.Block{}, nil
	m.saveLocked(save{binding: b})
	if b.HoldUntil.Before(m.holdsSeen) {
		m.timers.wakeUp()
	}
}

func (m *Manager) forgetLocked(s *slot) {
	m.engine.Forget(s.group(), s.inside())
	m.slots.remove(s.inside())
}

// settleLocked closes Ready once all groups are synced and no slot is busy.
func (m *Manager) settleLocked() {
	if m.settled || m.busy > 0 {
		return
	}
	for _, g := range m.groups {
		if !g.synced {
			return
		}
	}
	m.settled = true
	close(m.ready)
	m.log.Info("restored and reconciled", "subscribers", m.slots.len)
}
