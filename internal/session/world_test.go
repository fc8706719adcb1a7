package session

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/testenv"
)

// world is a Manager with a real Redis and the kernel's in-memory twin.
type world struct {
	*Manager
	*Backend
	*Desk
	t      testing.TB
	server *testenv.RedisServer
	client redis.UniversalClient
	db     *subscriberdb.DB
	nat    *memnat.NAT
	seen   *counts
	group  lsn.GroupConfig

	kernel Kernel                       // in place of nat, from the next boot on
	store  func(*subscriberdb.DB) Store // in place of db, from the next boot on

	owner Ownership     // from the next boot on
	guard guard.Limits  // from the next boot on
	ttl   time.Duration // of records, from the next boot on

	every time.Duration // between two looks, from the next boot on; 0 for the default

	lookEvery    time.Duration    // at ports, from the next boot on; 0 for the default
	mostNarrowed int              // subscribers with parts of a range, from the next boot on; 0 for the default
	shifted      func() time.Time // the clock from the next boot on; nil for the time

	logNAT                bool  // from the next boot on
	feedLength, feedLimit int64 // from the next boot on; 0 for the defaults
	eventOctets           int   // of the events kept for watchers, from the next boot on; 0 for the default

	stop func()

	log  *slog.Logger
	logs io.Writer // gets a copy of the log; nil for none
}

// counts is an Observer.
type counts struct {
	mu      sync.Mutex
	removed map[subscriber.Reason]int
	seen    map[subscriber.Reason]int // observed removals
	drifts  map[string]int
	resized map[inspect.Growth]int
	looked  map[inspect.Look]time.Duration
	limits  []string // reached, in order
}

func (c *counts) Removed(_ string, r subscriber.Reason) { c.add(func() { c.removed[r]++ }) }
func (c *counts) Observed(_ string, r subscriber.Reason, _ int) {
	c.add(func() { c.seen[r]++ })
}
func (c *counts) Drift(kind string) { c.add(func() { c.drifts[kind]++ }) }
func (c *counts) Looked(look inspect.Look, took time.Duration) {
	c.add(func() { c.looked[look] = took })
}
func (c *counts) LimitReached(group string, l nat.Limit) {
	c.add(func() { c.limits = append(c.limits, group+" "+l.String()) })
}
func (c *counts) Resized(_ string, how inspect.Growth) { c.add(func() { c.resized[how]++ }) }
func (c *counts) StopToCut(time.Duration)              {}
func (c *counts) StopToReaped(time.Duration)           {}

func (c *counts) add(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *counts) of(r subscriber.Reason) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removed[r]
}

func (c *counts) observedOf(r subscriber.Reason) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[r]
}

var testGroup = lsn.GroupConfig{
	Name:      "default",
	Inside:    []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
	Outside:   []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")},
	FirstPort: 1024, LastPort: 65535, BlockSize: 512, Hold: 200 * time.Millisecond,
}

func newWorld(t testing.TB, g lsn.GroupConfig, change ...func(*world)) *world {
	t.Helper()
	w := &world{t: t, server: testenv.StartRedis(t), group: g, ttl: time.Minute}
	for _, f := range change {
		f(w)
	}
	client, err := redisconn.Dial([]string{w.server.URL}, redisconn.ModeStandalone, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	w.client = client
	w.nat, err = memnat.New(g.Inside, someSettings.IdleTimeouts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() { _ = w.nat.Run(ctx) })
	t.Cleanup(func() { w.halt(); cancel(); task.Wait() })
	w.boot()
	return w
}

// boot starts a Manager on the present state of Redis and the twin.
func (w *world) boot() {
	w.t.Helper()
	var err error
	to := w.t.Output()
	if w.logs != nil {
		to = io.MultiWriter(to, w.logs)
	}
	log := slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelInfo}))
	w.log = log
	w.db, err = subscriberdb.New(subscriberdb.Options{
		Client: w.client, Node: "test", Logger: log, LogNAT: w.logNAT, FeedLength: w.feedLength, FeedLimit: w.feedLimit,
		Groups: []subscriberdb.Group{{Name: w.group.Name, Inside: w.group.Inside, RecordTTL: w.ttl, Guard: w.guard}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.seen = &counts{removed: map[subscriber.Reason]int{}, seen: map[subscriber.Reason]int{}, drifts: map[string]int{}, resized: map[inspect.Growth]int{}, looked: map[inspect.Look]time.Duration{}}
	var store Store = w.db
	if w.store != nil {
		store = w.store(w.db)
	}
	var kernel Kernel = w.nat
	if w.kernel != nil {
		kernel = w.kernel
	}
	w.Manager, err = New(Options{
		Store: store, Kernel: kernel, Groups: []lsn.GroupConfig{w.group}, Node: "test",
		Settings: someSettings, Observer: w.seen, Logger: log,
		Guards: map[string]guard.Limits{w.group.Name: w.guard}, Owner: w.owner, ReconcileEvery: w.every,
		LookEvery: w.lookEvery, Now: w.shifted, MaxMappings: 1000,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.mostNarrowed > 0 {
		w.growth.most = w.mostNarrowed
	}
	if w.eventOctets > 0 {
		w.Manager.reports.events = inspect.NewBroadcaster(inspect.BroadcasterOptions{Run: rand.Uint64(), Octets: w.eventOctets, Keep: eventsKept})
	}
	w.Backend, w.Desk = w.Manager.Backend(), w.Manager.Desk()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := w.Manager.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	tasks.Go(func() { _ = w.db.SweepRestarts(ctx, w.Followed) })
	tasks.Go(func() { _ = w.db.TrimFeeds(ctx) })
	w.stop = func() { cancel(); tasks.Wait() }
	select {
	case <-w.Ready():
	case <-time.After(time.Minute):
		w.t.Fatal("never ready")
	}
}

// halt ends the Manager like a crash: it announces nothing.
func (w *world) halt() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	w.within(10*time.Second, what, holds)
}

// within waits up to d until a condition holds.
func (w *world) within(d time.Duration, what string, holds func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// send records one accounting event as radiusacct would.
func (w *world) send(kind subscriber.EventKind, inside netip.Addr, user, id string) {
	w.t.Helper()
	w.sendAll(w.event(kind, inside, user, id))
}

func (w *world) event(kind subscriber.EventKind, inside netip.Addr, user, id string) subscriber.Event {
	return subscriber.Event{
		Kind: kind, Inside: inside, UserName: user, At: time.Now(), SessionTime: -1,
		SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1", AcctSessionID: id},
	}
}

// sendAll records events that arrive together.
func (w *world) sendAll(events ...subscriber.Event) {
	w.t.Helper()
	for _, err := range w.db.Record(context.Background(), events) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// bindings returns the bindings of an address, by state.
func (w *world) bindings(inside netip.Addr) map[nat.State]inspect.Binding {
	w.t.Helper()
	list, _, err := w.Bindings(context.Background(), inspect.BindingFilter{Inside: netip.PrefixFrom(inside, 32)}, inspect.BindingKey{}, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	byState := map[nat.State]inspect.Binding{}
	for _, b := range list {
		byState[b.State] = b
	}
	return byState
}

func (w *world) awaitState(inside netip.Addr, state nat.State) inspect.Binding {
	w.t.Helper()
	var found inspect.Binding
	w.until(fmt.Sprintf("%s to be in state %d", inside, state), func() (ok bool) {
		found, ok = w.bindings(inside)[state]
		return ok
	})
	return found
}

// entry returns the twin's entry of the address.
func (w *world) entry(inside netip.Addr) nat.Entry {
	w.t.Helper()
	if e, ok := w.nat.EntryAt(inside); ok {
		return e
	}
	return nat.Entry{Inside: inside}
}

var remote = netip.MustParseAddrPort("203.0.113.10:443")

// flow opens a session from the address.
func (w *world) flow(inside netip.Addr, port uint16) nftnat.Session {
	w.t.Helper()
	s, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(inside, port), remote)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) nothingLeft(inside netip.Addr) {
	w.t.Helper()
	w.until("nothing to be left of "+inside.String(), func() bool {
		return w.entry(inside).Gate == nat.GateClosed && w.nat.SessionCount(inside) == 0
	})
}

// check compares engine and twin: every open gate belongs to a live binding,
// and the engine's invariants hold.
func (w *world) check() {
	w.t.Helper()
	w.until("the daemon to be ready", func() bool { return w.NotReady() == nil })
	drifts, err := w.Reconcile(context.Background(), true)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range drifts {
		w.t.Errorf("drift: %+v", d)
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if err := w.life.Engine().Check(); err != nil {
		w.t.Error(err)
	}
	online, lost, held := 0, 0, 0
	states := map[nat.State]int{nat.Active: 0, nat.Draining: 0, nat.Cut: 0, nat.Held: 0}
	for _, s := range w.life.Slots().All() {
		if s.Online() {
			online++
			if s.Packed().RemovalHeld() != subscriber.ReasonNone {
				held++
			}
			if s.Packed().Unconfirmed() {
				lost++
			}
		}
	}
	w.life.Engine().Bindings(w.group.Name, func(b nat.Binding) bool { states[b.State]++; return true })
	status := w.groupStatusLocked(w.groups[w.group.Name])
	if got := map[nat.State]int{
		nat.Active: status.Active, nat.Draining: status.Draining, nat.Cut: status.Cut, nat.Held: status.Held,
	}; !maps.Equal(got, states) {
		w.t.Errorf("bindings by state are %v, counted %v", states, got)
	}
	for _, n := range status.RemovalsHeld {
		held -= n
	}
	if held != 0 {
		w.t.Errorf("%d more removals are held than counted", held)
	}
	if g := w.groups[w.group.Name]; g.Online() != online || g.Unconfirmed() != lost {
		w.t.Errorf("counted %d online and %d of them unconfirmed, there are %d and %d", g.Online(), g.Unconfirmed(), online, lost)
	}
}
