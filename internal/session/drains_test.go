package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func addresses(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

func TestLacking(t *testing.T) {
	for _, c := range []struct {
		addresses         []netip.Addr
		known, configured []netip.Prefix
		needed            []netip.Prefix
		lone              []netip.Addr
	}{
		{addresses("10.0.0.1"), nil, prefixes("10.0.0.0/8"), nil, nil},
		{nil, prefixes("10.0.0.0/8"), nil, nil, nil},
		{addresses("10.0.0.1"), prefixes("10.0.0.0/8", "192.0.2.0/24"), nil, prefixes("10.0.0.0/8"), nil},
		{addresses("10.0.0.1"), prefixes("10.0.0.0/8"), prefixes("10.128.0.0/9"), prefixes("10.0.0.0/9"), nil},
		{addresses("10.0.0.1", "192.0.2.1"), prefixes("10.0.0.0/8"), nil, prefixes("10.0.0.0/8"), addresses("192.0.2.1")},
	} {
		needed, lone := lacking(c.addresses, c.known, c.configured)
		if !slices.Equal(needed, c.needed) || !slices.Equal(lone, c.lone) {
			t.Errorf("%v of %v without %v: %v and %v, want %v and %v", c.addresses, c.known, c.configured, needed, lone, c.needed, c.lone)
		}
	}
}

func TestAggregate(t *testing.T) {
	for want, list := range map[string][]netip.Addr{
		"[]":             nil,
		"[192.0.2.1/32]": addresses("192.0.2.1", "192.0.2.1"),
		"[192.0.2.0/30]": addresses("192.0.2.3", "192.0.2.0", "192.0.2.2", "192.0.2.1"),
		"[192.0.2.1/32 192.0.2.2/31 192.0.2.4/32]": addresses("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"),
		"[0.0.0.0/31 255.255.255.254/31]":          addresses("0.0.0.0", "0.0.0.1", "255.255.255.254", "255.255.255.255"),
	} {
		if got := fmt.Sprint(aggregate(list)); got != want {
			t.Errorf("%v: %s, want %s", list, got, want)
		}
	}
}

// awayGroup returns a group whose prefixes are disjoint from testGroup's.
func awayGroup() lsn.GroupConfig {
	g := testGroup
	g.Name, g.Inside, g.Outside = "away", prefixes("10.0.0.0/8"), prefixes("203.0.113.0/28")
	return g
}

func (w *world) exists(keys ...string) int64 {
	w.t.Helper()
	n, err := w.client.Exists(context.Background(), keys...).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestRemainsOfDrains_I7: after a kill, the remains of a drain that was ending, or
// had not begun, are no drain, and are gone after the next start. Another
// daemon's group stays untouched.
func TestRemainsOfDrains_I7(t *testing.T) {
	w := newWorld(t, testGroup)
	w.halt()
	ctx := context.Background()
	db, err := subscriberdb.New(subscriberdb.Options{Client: w.client, Groups: []subscriberdb.Group{{Name: "empty"}, {Name: "others"}}})
	w.must(err)
	w.must(w.client.SAdd(ctx, "sessiond:groups", "ghost").Err()) // listed, without a Served
	served := subscriberdb.Served{
		By: "test", Inside: prefixes("10.0.0.0/8"), Outside: prefixes("203.0.113.0/28"), FirstPort: 1024, LastPort: 65535, BlockSize: 512,
	}
	served.Group = "empty" // was to be forgotten, or had no binding yet
	w.must(db.SaveServed(ctx, served))
	served.Group, served.By = "others", "another"
	w.must(db.SaveServed(ctx, served))
	over := nat.Binding{Group: "empty", State: nat.Held, HoldUntil: time.Now().Add(-time.Second), Blocks: nat.Blocks{Block: nat.Block{Outside: netip.MustParseAddr("203.0.113.1"), First: 1024, Last: 1535}}, Holder: nat.Holder{Inside: netip.MustParseAddr("10.0.0.1")}}
	w.must(db.SaveBindings(ctx, "empty", []nat.Binding{over}, nil))
	w.boot()
	if w.exists("sessiond:{empty}:served") != 0 {
		t.Error("a group that nobody uses is not forgotten")
	}
	if w.exists("sessiond:{others}:served") != 1 {
		t.Error("another daemon's group is forgotten")
	}
	if pools, _ := w.Pools(ctx); len(pools) != 1 || pools[0].Draining {
		t.Errorf("pools: %+v", pools)
	}
}

// TestDrainedPrefixGivesNothing_I5_I7: after a start with another outside prefix, a
// subscriber keeps its block of the old one, also during its hold. No other
// subscriber gets a block there.
func TestDrainedPrefixGivesNothing_I5_I7(t *testing.T) {
	g := testGroup
	g.Outside = prefixes("198.51.100.0/32")
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	kept := w.awaitState(alice, nat.Active)
	f := w.flow(alice, 4000)
	w.halt()
	w.group.Outside, w.group.Hold = prefixes("203.0.113.0/32"), 2*time.Second
	w.boot()
	if b := w.bindings(alice)[nat.Active]; b.Block != kept.Block {
		t.Fatalf("alice has %v, had %v", b.Block, kept.Block)
	}
	if w.nat.SessionCount(alice) != 1 {
		t.Errorf("alice's session %v is gone", f)
	}
	w.send(subscriber.EventStart, bob, "b", "2")
	if b := w.awaitState(bob, nat.Active); b.Outside != netip.MustParseAddr("203.0.113.0") {
		t.Errorf("bob has a block of %v, which drains", b.Outside)
	}
	w.check()
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Held)
	w.halt()
	w.boot()
	if _, ok := w.bindings(alice)[nat.Held]; !ok {
		t.Errorf("the hold was forgotten: %+v", w.bindings(alice))
	}
	w.send(subscriber.EventStart, alice, "a", "3") // would get its own held block again if the pool were configured
	if b := w.awaitState(alice, nat.Active); b.Outside != netip.MustParseAddr("203.0.113.0") {
		t.Errorf("alice got a block of %v, which drains", b.Outside)
	}
	w.until("the drain to be over", func() bool {
		pools, _ := w.Pools(context.Background())
		return len(pools) == 1 && !pools[0].Draining
	})
	w.check()
}

// TestRefusedStart_I1_I5: a hold reserves an outside address for its group. A start
// that would move the address to another group is refused until the hold is
// over.
func TestRefusedStart_I1_I5(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.halt()
	other := awayGroup()
	other.Outside = testGroup.Outside
	w.group.Outside = prefixes("203.0.113.0/28")
	refusal := func() error {
		m, err := New(Options{
			Store: w.db, Kernel: w.nat, Groups: []lsn.GroupConfig{w.group, other}, Node: "test",
			Settings: someSettings, Observer: w.seen, Logger: w.log,
		})
		w.must(err)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return m.Run(ctx)
	}
	if err := refusal(); !errors.Is(err, errRefused) || !errors.Is(err, lsn.ErrInUse) || !strings.Contains(err.Error(), "in use by "+alice.String()) {
		t.Errorf("alice's address was given away: %v", err)
	}
	held := nat.Binding{Group: "default", State: nat.Held, ReleasedAt: time.Now(), HoldUntil: time.Now().Add(time.Hour), Blocks: nat.Blocks{Block: nat.Block{Outside: netip.MustParseAddr("198.51.100.0"), First: 1024, Last: 1535}}, Holder: nat.Holder{Inside: alice}}
	w.must(w.db.SaveBindings(context.Background(), "default", []nat.Binding{held}, nil))
	if err := refusal(); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "until the hold of") {
		t.Errorf("an address in its hold was given away: %v", err)
	}
	if e := w.entry(alice); e.Outside != netip.MustParseAddr("198.51.100.0") {
		t.Errorf("the refused start has touched alice: %+v", e)
	}
}

// TestReloadAddsServedGroup_I7: a group that a reload adds may have been served by
// another node, with bindings in prefixes that it no longer has. They drain as
// after a start.
func TestReloadAddsServedGroup_I7(t *testing.T) {
	w := newWorld(t, testGroup)
	ctx := context.Background()
	away := awayGroup()
	eve := netip.MustParseAddr("10.0.0.9")
	w.must(w.db.Serve([]subscriberdb.Group{{Name: "away", Inside: away.Inside, RecordTTL: time.Minute}}))
	w.send(subscriber.EventStart, eve, "e", "1")
	stored := nat.Binding{Group: "away", AllocatedAt: time.Now(), Blocks: nat.Blocks{Block: nat.Block{Outside: netip.MustParseAddr("192.0.2.7"), First: 2048, Last: 2559}}, Holder: nat.Holder{Inside: eve, Identity: "u:e", UserName: "e", AcctSessionID: "1"}}
	w.must(w.db.SaveBindings(ctx, "away", []nat.Binding{stored}, nil))
	if err := w.SetGroups(ctx, []lsn.GroupConfig{testGroup, away}); err != nil {
		t.Fatal(err)
	}
	if b := w.awaitState(eve, nat.Active); b.Outside != stored.Outside || b.First != 2048 {
		t.Errorf("eve has %v:%d", b.Outside, b.First)
	}
	pools, _ := w.Pools(ctx)
	if got := fmt.Sprint(pools); !strings.Contains(got, "192.0.2.7/32") || !pools[1].Draining {
		t.Errorf("pools: %s", got)
	}
	w.send(subscriber.EventStop, eve, "e", "1")
	w.until("the drain to be over", func() bool {
		pools, _ := w.Pools(ctx)
		return len(pools) == 2
	})
	if err := w.SetGroups(ctx, []lsn.GroupConfig{testGroup}); err != nil {
		t.Fatal(err)
	}
	w.until("the group to be forgotten", func() bool { return w.exists("sessiond:{away}:served") == 0 && len(w.Inside()) == 1 })
}

// TestReloadOfAnothersGroup_I1: a reload that adds a group which another daemon serves
// is refused and changes nothing.
func TestReloadOfAnothersGroup_I1(t *testing.T) {
	o := &owner{others: "away"}
	w := newWorld(t, testGroup, func(w *world) { w.owner = o })
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{testGroup, awayGroup()}); !errors.Is(err, ownership.ErrOwned) {
		t.Errorf("another's group: %v", err)
	}
	if pools, _ := w.Pools(context.Background()); len(pools) != 1 || len(w.Inside()) != 1 {
		t.Errorf("pools: %+v", pools)
	}
}

// owner is an Ownership whose lease the test can put in doubt, or revoke.
type owner struct {
	alone
	doubt  atomic.Bool
	lost   atomic.Bool
	others string // a group that another daemon has
}

func (o *owner) Claim(_ context.Context, group string) error {
	if group == o.others {
		return fmt.Errorf("group %s: %w", group, ownership.ErrOwned)
	}
	return nil
}

func (o *owner) Holds(string) bool { return !o.doubt.Load() && !o.lost.Load() }

func (o *owner) Renew(context.Context) error {
	if o.lost.Load() {
		return fmt.Errorf("default: %w", ownership.ErrOwned)
	}
	return nil
}

// TestNothingStoredWithoutLease_I1: while the lease is in doubt no binding is
// stored, so none becomes active. Afterwards everything proceeds.
func TestNothingStoredWithoutLease_I1(t *testing.T) {
	o := &owner{}
	w := newWorld(t, testGroup, func(w *world) { w.owner = o })
	o.doubt.Store(true)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.until("the save to be tried", func() bool {
		w.mu.RLock()
		defer w.mu.RUnlock()
		return w.life.Writes().Len() == 1
	})
	if keys, err := w.client.Keys(context.Background(), "sessiond:{default}:bindings*").Result(); err != nil || len(keys) != 0 {
		t.Errorf("bindings stored in %v, %v", keys, err)
	}
	if _, active := w.bindings(alice)[nat.Active]; active {
		t.Error("alice is active without a stored binding")
	}
	o.doubt.Store(false)
	w.awaitState(alice, nat.Active)
}

// TestStandsAside_I9: a daemon that lost its group to another logs it, and acts no
// more, neither on a Stop nor on a reload.
func TestStandsAside_I9(t *testing.T) {
	o := &owner{}
	w := newWorld(t, testGroup, func(w *world) { w.owner = o })
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	before := w.entry(alice)
	o.lost.Store(true)
	w.until("it to be told", func() bool {
		return errors.Is(w.Manager.served.mayRegroup(), ownership.ErrOwned) && w.NotReady() != nil
	})
	w.send(subscriber.EventStop, alice, "a", "1")
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{testGroup, awayGroup()}); !errors.Is(err, ownership.ErrOwned) {
		t.Errorf("reload: %v", err)
	}
	if _, err := w.Reconcile(context.Background(), false); err == nil {
		t.Error("a reconcile was done")
	}
	if now := w.entry(alice); now != before {
		t.Errorf("alice's gate is %+v, was %+v", now, before)
	}
}
