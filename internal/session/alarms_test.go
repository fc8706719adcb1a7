package session

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// counted returns the counted drifts, by kind.
func (c *counts) counted() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]int, len(c.drifts))
	for kind, n := range c.drifts {
		all[kind] = n
	}
	return all
}

// lateFeed is a store whose feed is read only at intervals, as by an overloaded
// engine.
type lateFeed struct {
	Store
	every time.Duration
}

func (s *lateFeed) Feed(
	ctx context.Context, group, after string, limit int, block time.Duration, room []subscriber.Change,
) ([]subscriber.Change, string, error) {
	if err := clock.Sleep(ctx, s.every); err != nil {
		return nil, after, err
	}
	return s.Store.Feed(ctx, group, after, limit, block, room)
}

// busyAddress returns an inside address of the load.
func busyAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, 1 + byte(i/200), byte(i % 200)})
}

// load makes subscribers come, go, report, use their NAT and change hands, some
// hundreds of times a second, until ctx ends.
func (w *world) load(ctx context.Context, of, workers int) {
	events := make([]subscriber.Event, 0, 16)
	tick := time.NewTicker(20 * time.Millisecond) // a late feed must be late, and not fall behind without bound
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		events = events[:0]
		for i := of; len(events) < cap(events); i += workers {
			n := round/3 + i%2 // every other address is one round ahead
			ev := subscriber.Event{
				Kind: subscriber.EventStart, Inside: busyAddress(i), UserName: fmt.Sprint("u", i%7*n), At: time.Now(), SessionTime: -1,
				SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1", AcctSessionID: fmt.Sprint(i, "-", n)},
			}
			switch round % 3 {
			case 1:
				ev.Kind = subscriber.EventInterim
				_, _ = w.nat.Send(17, netip.AddrPortFrom(ev.Inside, 4000), remote) // dropped without a gate
			case 2:
				if i%5 > 0 { // the sessions of the others are taken over
					ev.Kind = subscriber.EventStop
				}
			}
			events = append(events, ev)
		}
		for _, err := range w.db.Record(ctx, events) {
			if err != nil && ctx.Err() == nil {
				w.t.Error(err)
				return
			}
		}
	}
}

// TestNoDriftUnderLoad_NAT40: unread feed entries are no drift, however far the
// engine lags, and a state without drift stays so under load.
func TestNoDriftUnderLoad_NAT40(t *testing.T) {
	for name, every := range map[string]time.Duration{"in step": 0, "late": 30 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			g := testGroup
			g.Hold = 30 * time.Millisecond
			w := newWorld(t, g, func(w *world) {
				w.store = func(db *subscriberdb.DB) Store { return &lateFeed{db, every} }
			})
			ctx, cancel := context.WithCancel(context.Background())
			var loads sync.WaitGroup
			defer func() { cancel(); loads.Wait() }()
			for of := range 2 {
				loads.Go(func() { w.load(ctx, of, 2) })
			}
			position := func() string { return w.positionOf(w.groups[g.Name]) }
			for range 25 {
				before := position()
				w.until("the load to go on", func() bool { return position() != before })
				drifts, err := w.Reconcile(context.Background(), false)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range drifts {
					t.Errorf("drift: %+v", d)
				}
			}
			if counted := w.seen.counted(); len(counted) > 0 {
				t.Errorf("counted %v", counted)
			}
			// A difference without a feed entry is still counted.
			cancel()
			loads.Wait()
			w.send(subscriber.EventStart, alice, "a", "1")
			w.awaitState(alice, nat.Active)
			w.unprogram(alice)
			w.reconcile(t)
			if counted := w.seen.counted(); counted[string(inspect.DriftElementMissing)] != 1 || len(counted) != 1 {
				t.Errorf("counted %v, want one element_missing", counted)
			}
		})
	}
}

// unprogram deletes the address's elements from the kernel.
func (w *world) unprogram(inside netip.Addr) {
	w.t.Helper()
	if err := w.nat.Apply(context.Background(), []nat.Entry{{Inside: inside}}); err != nil {
		w.t.Fatal(err)
	}
}

// reconcile compares after all work is done, so that every remaining difference
// is drift.
func (w *world) reconcile(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.Quiet(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Reconcile(ctx, false); err != nil {
		t.Fatal(err)
	}
}

// TestDriftIsCountedOnce: changes by others are counted, and once each,
// although the comparison runs again before all are repaired.
func TestDriftIsCountedOnce(t *testing.T) {
	ctx := context.Background()
	for kind, disturb := range map[inspect.DriftKind]func(*world){
		inspect.DriftElementMissing: func(w *world) { w.unprogram(alice) },
		inspect.DriftBindingUnsaved: func(w *world) {
			keys := w.client.Keys(ctx, "sessiond:{default}:bindings:*").Val()
			if n := w.client.Del(ctx, keys...).Val(); n != 1 {
				t.Errorf("%d keys deleted", n)
			}
		},
		inspect.DriftBindingOrphaned: func(w *world) { // and no notice reports it
			w.client.ConfigSet(ctx, "notify-keyspace-events", "")
			if n := w.client.Del(ctx, "sessiond:{default}:sub:"+alice.String()).Val(); n != 1 {
				t.Errorf("%d keys deleted", n)
			}
		},
	} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t, testGroup)
			w.send(subscriber.EventStart, alice, "a", "1")
			w.awaitState(alice, nat.Active)
			w.reconcile(t)
			if counted := w.seen.counted(); len(counted) > 0 {
				t.Fatalf("counted %v before anything was changed", counted)
			}
			disturb(w)
			w.reconcile(t)
			for range 5 {
				if _, err := w.Reconcile(ctx, false); err != nil {
					t.Fatal(err)
				}
			}
			if counted := w.seen.counted(); counted[string(kind)] != 1 || len(counted) != 1 {
				t.Errorf("counted %v, want %s once", counted, kind)
			}
			w.until("the difference to be gone", func() bool {
				drifts, err := w.Reconcile(ctx, true)
				return err == nil && len(drifts) == 0
			})
		})
	}
}

// TestNoDriftAtTheStart: state that a start restores, records written back into
// an emptied database, and a record that expired unnoticed are no drift.
func TestNoDriftAtTheStart(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.halt()
	w.unprogram(alice) // as after a reboot
	w.send(subscriber.EventStart, bob, "b", "2")
	w.boot()
	w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	if counted := w.seen.counted(); len(counted) > 0 {
		t.Errorf("the start counted %v", counted)
	}
	if err := w.client.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	w.until("the alarm", func() bool { return w.suspicion() != "" })
	w.send(subscriber.EventInterim, alice, "a", "1")
	w.send(subscriber.EventInterim, bob, "b", "2")
	w.until("the all-clear", func() bool { return w.suspicion() == "" })
	w.reconcile(t)
	if counted := w.seen.counted(); len(counted) > 0 {
		t.Errorf("the rebuilding counted %v", counted)
	}
	w.check()
}

// TestNoDriftWithoutBlocks: a subscriber that comes online in a group that a
// reload removed gets no block, and that is no drift.
func TestNoDriftWithoutBlocks(t *testing.T) {
	w := newWorld(t, testGroup)
	other := testGroup
	other.Name = "other"
	other.Inside = []netip.Prefix{netip.MustParsePrefix("100.0.0.0/24")}
	other.Outside = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/28")}
	err := w.db.SetGroups([]subscriberdb.Group{
		{Name: w.group.Name, Inside: w.group.Inside, RecordTTL: w.ttl}, {Name: other.Name, Inside: other.Inside, RecordTTL: w.ttl},
	})
	if err == nil {
		err = w.SetGroups(context.Background(), []lsn.GroupConfig{other})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventStart, alice, "a", "1")
	w.until("alice to be online", func() bool {
		_, err := w.Subscriber(context.Background(), subscriber.Key{Inside: alice})
		return err == nil
	})
	for range 3 {
		w.reconcile(t)
	}
	if counted := w.seen.counted(); len(counted) > 0 {
		t.Errorf("counted %v", counted)
	}
}

// TestFeedLag: the lag is the age of the oldest entry that is not taken. It
// grows until the entry is taken, and is zero when all are.
func TestFeedLag(t *testing.T) {
	stalled := make(chan struct{})
	release := sync.OnceFunc(func() { close(stalled) })
	defer release()
	w := newWorld(t, testGroup, func(w *world) {
		w.store = func(db *subscriberdb.DB) Store { return &stalledFeed{db, stalled} }
	})
	lag := func() time.Duration {
		s, err := w.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return s.Groups[0].FeedLag
	}
	if n := lag(); n != 0 {
		t.Errorf("a feed without entries is %v behind", n)
	}
	began := time.Now()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.until("the lag to be seen", func() bool { return lag() > 0 })
	w.send(subscriber.EventStart, bob, "b", "2") // younger, so it does not matter
	w.until("the lag to grow", func() bool { return lag() > 1500*time.Millisecond })
	if n, most := lag(), time.Since(began)+time.Second; n > most {
		t.Errorf("%v behind, at most %v are possible", n, most)
	}
	release()
	w.awaitState(bob, nat.Active)
	w.until("the lag to be over", func() bool { return lag() == 0 })
}

// stalledFeed is a store whose feed blocks until the channel is closed.
type stalledFeed struct {
	Store
	until chan struct{}
}

func (s *stalledFeed) Feed(
	ctx context.Context, group, after string, limit int, block time.Duration, room []subscriber.Change,
) ([]subscriber.Change, string, error) {
	select {
	case <-s.until:
	case <-ctx.Done():
		return nil, after, ctx.Err()
	}
	return s.Store.Feed(ctx, group, after, limit, block, room)
}

// TestExhaustedPoolIsToldOnce: waiting subscribers are logged in one line a
// minute for the whole group, and so is their end.
func TestExhaustedPoolIsToldOnce(t *testing.T) {
	g := testGroup
	g.Outside = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
	g.FirstPort, g.LastPort = 1024, 1535
	var logs lockedBuilder
	w := newWorld(t, g, func(w *world) { w.logs = &logs })
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.halt() // the clock is the test's from here on
	clock := time.Now()
	w.now = func() time.Time { return clock }
	waiting := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 9, byte(i)}) }
	arrive := func(i int) {
		w.Manager.follower.apply(w.groups[g.Name], []subscriber.Change{{
			ID: subscriber.ParseVersion(fmt.Sprintf("%d-0", clock.UnixMilli()+int64(i))), Kind: subscriber.Created,
			Record: (&subscriber.Record{
				Key: subscriber.Key{Group: g.Name, Inside: waiting(i)}, UserName: fmt.Sprint("w", i),
				SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1", AcctSessionID: fmt.Sprint("w", i)},
			}).Pack(),
		}}, w.positionOf(w.groups[g.Name]))
	}
	lines := func(text string) int { return strings.Count(logs.String(), text) }
	const exhausted, suffices = "pool exhausted", "pool suffices again"
	for i := range 100 {
		arrive(i)
		w.alarms.tellExhausted()
	}
	if n := lines(exhausted); n != 1 {
		t.Fatalf("%d lines about 100 who wait, want 1\n%s", n, logs.String())
	}
	clock = clock.Add(shortageEvery)
	w.alarms.tellExhausted()
	w.alarms.tellExhausted()
	if n := lines(exhausted); n != 2 || lines("waiting=100") != 1 {
		t.Errorf("%d lines after a minute, want 2, and 100 who wait\n%s", n, logs.String())
	}
	w.mu.Lock()
	for i := range 100 {
		w.life.Engine().Forget(g.Name, waiting(i))
	}
	w.mu.Unlock()
	w.alarms.tellExhausted()
	if n := lines(suffices); n != 0 {
		t.Errorf("said to suffice within the minute")
	}
	clock = clock.Add(shortageEvery)
	w.alarms.tellExhausted()
	clock = clock.Add(shortageEvery)
	w.alarms.tellExhausted()
	if n := lines(suffices); n != 1 || lines(exhausted) != 2 {
		t.Errorf("%d lines say that the pool suffices, want 1\n%s", n, logs.String())
	}
}

// lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
