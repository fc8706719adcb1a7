package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// faultyKernel is the twin with faults.
type faultyKernel struct {
	*nftnat.Memory
	clings   atomic.Pointer[netip.Addr] // the entries of this address keep coming back
	prefixes error                      // what SetPrefixes fails with
}

func (k *faultyKernel) Reap(ctx context.Context, inside []netip.Addr) ([]nftnat.Receipt, error) {
	receipts, err := k.Memory.Reap(ctx, inside)
	proved := receipts[:0]
	for _, r := range receipts {
		if clings := k.clings.Load(); clings == nil || r.Inside != *clings {
			proved = append(proved, r)
		}
	}
	return proved, err
}

func (k *faultyKernel) SetPrefixes(ctx context.Context, inside, outside []netip.Prefix) error {
	if k.prefixes != nil {
		return k.prefixes
	}
	return k.Memory.SetPrefixes(ctx, inside, outside)
}

// TestClingingEntriesHoldUpNobody_I5: an address whose conntrack entries keep coming
// back stays cut, and others are reaped meanwhile.
func TestClingingEntriesHoldUpNobody_I5(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	kernel := &faultyKernel{Memory: w.nat}
	kernel.clings.Store(&alice)
	w.kernel = kernel
	w.boot()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, lsn.Active)
	w.awaitState(bob, lsn.Active)
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, lsn.Cut)
	w.send(subscriber.EventStop, bob, "b", "2")
	w.awaitState(bob, lsn.Held)
	if _, ok := w.bindings(alice)[lsn.Cut]; !ok {
		t.Errorf("alice's block left her without proof: %+v", w.bindings(alice))
	}
	kernel.clings.Store(nil)
	w.awaitState(alice, lsn.Held)
}

// TestRefusedGroups: a configuration that the kernel refuses changes nothing.
func TestRefusedGroups(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	kernel := &faultyKernel{Memory: w.nat, prefixes: errors.New("refused")}
	w.kernel = kernel
	w.boot()
	before, _ := w.Pools(context.Background())
	grown := testGroup
	grown.Outside = append([]netip.Prefix{netip.MustParsePrefix("203.0.113.0/28")}, grown.Outside...)
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{grown}); !errors.Is(err, kernel.prefixes) {
		t.Errorf("got %v, want %v", err, kernel.prefixes)
	}
	if after, _ := w.Pools(context.Background()); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("pools are %v, were %v", after, before)
	}
}

// TestDatabaseFromThePast_I6: the feed of an emptied database may begin with
// identifiers below those of the lost one. What it tells counts all the same.
func TestDatabaseFromThePast_I6(t *testing.T) {
	w := newWorld(t, testGroup)
	ctx := context.Background()
	future := fmt.Sprintf("%d-0", time.Now().Add(time.Hour).UnixMilli())
	err := w.client.XAdd(ctx, &redis.XAddArgs{
		Stream: "sessiond:{default}:feed", ID: future, Values: []string{"kind", "nas_restart"},
	}).Err()
	if err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, lsn.Active)
	if err := w.client.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	w.until("the alarm", func() bool { return w.suspicion() != "" })
	w.until("the record to be back", func() bool {
		if w.suspicion() == "" {
			t.Fatal("the alarm ended before a BNG confirmed the record")
		}
		n, err := w.client.Exists(ctx, "sessiond:{default}:sub:"+alice.String()).Result()
		return err == nil && n == 1
	})
	w.send(subscriber.EventInterim, alice, "a", "1")
	w.until("the all-clear", func() bool { return w.suspicion() == "" })
	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
	w.awaitState(alice, lsn.Held)
}

// TestStopInTheEmptiedDatabase_I6: a session that comes back and ends in an
// emptied database, before anybody noticed, is over.
func TestStopInTheEmptiedDatabase_I6(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, lsn.Active)
	w.awaitState(bob, lsn.Active)
	w.reconciling.Lock() // nobody notices
	if err := w.client.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventInterim, alice, "a", "1")
	w.send(subscriber.EventStop, alice, "a", "1")
	w.send(subscriber.EventStop, bob, "b", "2")
	w.reconciling.Unlock()
	w.nothingLeft(alice)
	w.nothingLeft(bob)
	w.awaitState(alice, lsn.Held)
}

// slowSettings holds a read of the settings back after it was answered.
type slowSettings struct {
	Store
	armed   atomic.Bool
	read    chan struct{} // the read was answered
	proceed chan struct{}
}

func (s *slowSettings) Settings(ctx context.Context) (map[string]string, error) {
	text, err := s.Store.Settings(ctx)
	if s.armed.CompareAndSwap(true, false) {
		close(s.read)
		<-s.proceed
	}
	return text, err
}

// TestLateSettings: settings that were read before a change do not undo it, not
// even for a moment: switched on, the toggle cuts what drains.
func TestLateSettings(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	slow := &slowSettings{read: make(chan struct{}), proceed: make(chan struct{})}
	w.store = func(db *subscriberdb.DB) Store { slow.Store = db; return slow }
	w.boot()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, lsn.Active)
	w.flow(alice, 4000)

	slow.armed.Store(true)
	<-slow.read // says "on"
	changed := make(chan error, 1)
	go func() {
		s := inspect.Settings{SubscriberSessionRemoval: false}
		_, err := w.UpdateSettings(context.Background(), s, []string{inspect.SettingRemoval})
		changed <- err
	}()
	var err error
	select {
	case err = <-changed:
		close(slow.proceed)
	case <-time.After(100 * time.Millisecond): // the change waits for the read
		close(slow.proceed)
		err = <-changed
	}
	if err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, lsn.Draining)
	if got, _ := w.Settings(context.Background()); got.SubscriberSessionRemoval {
		t.Error("an old read undid the change")
	}
}

// TestOnePieceOfWork: two drifts of one address set its slot in motion once.
func TestOnePieceOfWork(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, lsn.Active)
	w.mu.Lock()
	g, o := w.groups["default"], &observation{}
	next := w.slots[alice].record
	next.UserName, next.AcctSessionID = "z", "2"
	entry := nftnat.Entry{Inside: alice, Gate: nftnat.Open}
	for _, d := range []drift{
		{Drift: inspect.Drift{Kind: inspect.DriftRecordUnseen, Inside: alice}, record: next},
		{Drift: inspect.Drift{Kind: inspect.DriftElementMissing, Inside: alice}},
		{Drift: inspect.Drift{Kind: inspect.DriftElementOrphaned, Inside: alice}, entry: entry},
	} {
		w.mendLocked(g, o, d)
	}
	if w.busy != 1 || w.slots[alice].stray {
		t.Errorf("%d pieces of work, stray %t; want 1 and false", w.busy, w.slots[alice].stray)
	}
	w.mu.Unlock()
}

// TestEndSeenWhileBusy: when the feed is taken up anew, a record that is gone
// is seen to be gone although an executor works for its slot: what the feed said
// of it before is not told again.
func TestEndSeenWhileBusy(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, lsn.Active)
	w.mu.Lock()
	w.workLocked(w.slots[alice])
	var kinds []inspect.DriftKind
	w.compareLocked(w.groups["default"], &observation{anew: true}, func(d drift) { kinds = append(kinds, d.Kind) })
	w.restLocked(w.slots[alice])
	w.mu.Unlock()
	if len(kinds) != 1 || kinds[0] != inspect.DriftBindingOrphaned {
		t.Errorf("found %v, want %s", kinds, inspect.DriftBindingOrphaned)
	}
}
