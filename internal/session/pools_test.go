package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/testenv"
)

var spare = netip.MustParsePrefix("203.0.113.0/31")

// listed returns the pools as text, without their counts.
func (w *world) listed() string {
	w.t.Helper()
	pools, err := w.Pools(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	var words []string
	for _, p := range pools {
		word := p.Outside.String() + [...]string{"", "", " run-time", " former"}[p.Origin] + [...]string{"", " added", " drained", " removed"}[p.Change]
		if p.Draining {
			word += " draining"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func (w *world) awaitListed(want string) {
	w.t.Helper()
	testenv.Succeeds(w.t, func() error {
		if got := w.listed(); got != want {
			return fmt.Errorf("pools %q, want %q", got, want)
		}
		return nil
	})
}

// TestPoolsAtRunTime_NAT27_I7: a prefix is added, drained and removed while subscribers have
// blocks of it; each change is there after a crash.
func TestPoolsAtRunTime_NAT27_I7(t *testing.T) {
	g := testGroup
	g.Outside = prefixes("198.51.100.0/32")
	g.Hold = 300 * time.Millisecond
	w := newWorld(t, g)
	ctx := context.Background()
	w.send(subscriber.EventStart, alice, "a", "1")
	kept := w.awaitState(alice, nat.Active)
	w.flow(alice, 4000)

	pools, err := w.AddPool(ctx, "", spare)
	w.must(err)
	if len(pools) != 1 || pools[0].Free != 252 || pools[0].Origin != inspect.PoolRunTime {
		t.Errorf("added: %+v", pools)
	}
	_, err = w.DrainPool(ctx, "", g.Outside[0])
	w.must(err)
	const both = "203.0.113.0/31 run-time added, 198.51.100.0/32 drained draining"
	w.awaitListed(both)
	w.halt()
	w.boot()
	w.awaitListed(both)
	if b := w.bindings(alice)[nat.Active]; b.Block != kept.Block || w.nat.SessionCount(alice) != 1 {
		t.Errorf("alice has %v and %d sessions while her prefix drains, had %v", b.Block, w.nat.SessionCount(alice), kept.Block)
	}
	w.send(subscriber.EventStart, bob, "b", "2")
	if b := w.awaitState(bob, nat.Active); !spare.Contains(b.Outside) {
		t.Errorf("bob got a block of %v, which drains", b.Outside)
	}
	w.check()

	_, _, err = w.RemovePool(ctx, "", g.Outside[0], false)
	if live := (*inspect.LiveBindingsError)(nil); !errors.As(err, &live) || live.Bindings != 1 {
		t.Fatalf("removal of a prefix with a live binding: %v", err)
	}
	if w.entry(alice).Gate != nat.GateOpen {
		t.Error("the refused removal has cut alice")
	}
	_, cut, err := w.RemovePool(ctx, "", g.Outside[0], true)
	w.must(err)
	if cut != 1 {
		t.Errorf("%d bindings are cut, want 1", cut)
	}
	w.until("alice to have a block of the other prefix", func() bool {
		b, ok := w.bindings(alice)[nat.Active]
		return ok && spare.Contains(b.Outside)
	})
	if b, ok := w.bindings(alice)[nat.Held]; !ok || b.Block != kept.Block || b.Receipt == nil || b.Receipt.Deleted != 1 {
		t.Errorf("the cut binding: %+v", b)
	}
	if n := w.seen.of(subscriber.ReasonPoolRemoved); n != 1 {
		t.Errorf("%d removals are counted for the prefix, want 1", n)
	}
	w.awaitListed("203.0.113.0/31 run-time added, 198.51.100.0/32 removed draining")
	w.until("the prefix to leave the kernel with its last block", func() bool {
		w.mu.RLock()
		defer w.mu.RUnlock()
		return len(w.Manager.served.terms.Outside) == 1 && w.Manager.served.terms.Outside[0] == spare
	})
	w.halt()
	w.boot()
	w.awaitListed("203.0.113.0/31 run-time added, 198.51.100.0/32 removed draining")
	w.check()

	_, err = w.AddPool(ctx, "default", g.Outside[0])
	w.must(err)
	w.awaitListed("198.51.100.0/32, 203.0.113.0/31 run-time added")
	w.must(w.SetGroups(ctx, []lsn.GroupConfig{func() lsn.GroupConfig { c := g; c.Outside = append(prefixes("203.0.113.0/31"), g.Outside...); return c }()}))
	w.until("the configuration to win quietly", func() bool { return w.exists("sessiond:{default}:pools") == 0 })
	w.awaitListed("203.0.113.0/31, 198.51.100.0/32")
	w.check()
}

// TestCutOfPoolSurvivesKill_NAT27_I7: a kill between the stored removal and the cut: the next
// start cuts the bindings, also those of a prefix that is not configured any more.
func TestCutOfPoolSurvivesKill_NAT27_I7(t *testing.T) {
	g := testGroup
	g.Outside = prefixes("198.51.100.0/32")
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	kept := w.awaitState(alice, nat.Active)
	w.halt()
	w.must(w.db.SavePoolChanges(context.Background(), "default", changed("added", spare.String(), "cut", "198.51.100.0/32")))
	w.boot()
	w.until("alice to have a block of the other prefix", func() bool {
		b, ok := w.bindings(alice)[nat.Active]
		return ok && spare.Contains(b.Outside) && b.Block != kept.Block
	})
	w.check()
}

// TestPoolsRefused_NAT27: a change that cannot be is refused with its reason, and nothing is
// changed, neither here nor in the database.
func TestPoolsRefused_NAT27(t *testing.T) {
	g := testGroup
	g.Draining = prefixes("192.0.2.0/28")
	w := newWorld(t, g)
	w.halt()
	kernel := &faultyKernel{NAT: w.nat, own: netip.MustParseAddr("20.0.1.1")}
	w.kernel = kernel
	w.boot()
	away := awayGroup()
	w.must(w.db.Serve([]subscriberdb.Group{{Name: "away", Inside: away.Inside, RecordTTL: time.Minute}}))
	w.must(w.SetGroups(context.Background(), []lsn.GroupConfig{g, away}))
	before := w.listed()
	ctx := context.Background()
	add := func(group, prefix string) error {
		_, err := w.AddPool(ctx, group, netip.MustParsePrefix(prefix))
		return err
	}
	drain := func(group, prefix string) error {
		_, err := w.DrainPool(ctx, group, netip.MustParsePrefix(prefix))
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want error
		says string
	}{
		"inside of the group":           {add("default", "100.64.0.0/24"), inspect.ErrPoolConflict, "inside prefix 100.64.0.0/10"},
		"inside of another":             {add("default", "10.0.0.0/30"), inspect.ErrPoolConflict, "inside prefix 10.0.0.0/8"},
		"outside of another":            {add("default", "203.0.113.0/30"), inspect.ErrPoolConflict, "203.0.113.0/28, which is another group's"},
		"around the outside of another": {add("default", "203.0.113.0/24"), inspect.ErrPoolConflict, "another group's"},
		"the machine's own network":     {add("default", "20.0.1.0/24"), inspect.ErrPoolConflict, "20.0.1.1 of 20.0.1.0/24 is an address of this machine"},
		"too many blocks":               {add("default", "20.0.0.0/8"), inspect.ErrPoolConflict, "blocks are more than"},
		"drains by the configuration":   {add("default", "192.0.2.0/30"), inspect.ErrPoolConflict, "take `draining` out there"},
		"no such group":                 {add("none", "20.0.0.0/30"), inspect.ErrNotFound, "none"},
		"no group named":                {add("", "20.0.0.0/30"), inspect.ErrNotFound, "name the group"},
		"drain of what is not there":    {drain("", "20.0.0.0/30"), inspect.ErrNotFound, "20.0.0.0/30"},
		"drain of another group's":      {drain("away", "198.51.100.0/28"), inspect.ErrNotFound, "198.51.100.0/28"},
		"drain of more than is there":   {drain("", "198.51.100.0/27"), inspect.ErrNotFound, "198.51.100.0/27"},
	} {
		if !errors.Is(c.err, c.want) || !strings.Contains(fmt.Sprint(c.err), c.says) {
			t.Errorf("%s: %v, want %v with %q", name, c.err, c.want, c.says)
		}
	}
	w.must(drain("", "203.0.113.0/30"))
	w.must(add("", "203.0.113.0/30")) // by the group that has it
	kernel.prefixes = errors.New("no memory")
	if err := add("default", "20.0.0.0/30"); !errors.Is(err, kernel.prefixes) {
		t.Errorf("the kernel refuses: %v", err)
	}
	kernel.prefixes = nil
	w.server.Hang(t)
	hung, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := w.AddPool(hung, "default", netip.MustParsePrefix("20.0.0.0/30")); !errors.Is(err, inspect.ErrUnavailable) {
		t.Errorf("added without the database: %v", err)
	}
	w.server.Resume(t)
	w.until("the daemon to be ready", func() bool { return w.NotReady() == nil })
	if now := w.listed(); now != before {
		t.Errorf("pools are %s, were %s", now, before)
	}
	w.until("nothing to be left in the database", func() bool { return w.exists("sessiond:{default}:pools") == 0 })
	w.check()
}

// TestRandomPools_NAT27_NAT30_I1_I5: subscribers come and go while prefixes are added, drained,
// removed and cut at random, with crashes between. No binding is in a removed prefix, no block
// has two owners, and everybody has a block at the end.
func TestRandomPools_NAT27_NAT30_I1_I5(t *testing.T) {
	steps := 800
	if testing.Short() {
		steps = 200
	}
	g := graceGroup(20 * time.Millisecond)
	g.Hold, g.Outside = 5*time.Millisecond, prefixes("198.51.100.0/30")
	w := newWorld(t, g)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	ctx := context.Background()
	online := map[netip.Addr]string{}
	pools := prefixes("198.51.100.0/30", "198.51.100.0/31", "198.51.100.3/32", "203.0.113.0/30", "203.0.113.1/32")
	for i := range steps {
		inside := netip.AddrFrom4([4]byte{100, 64, 1, byte(r.IntN(30))})
		pool := pools[r.IntN(len(pools))]
		var err error
		switch id := fmt.Sprint(i); r.IntN(12) {
		case 0, 1, 2, 3, 4:
			w.send(subscriber.EventStart, inside, "u"+fmt.Sprint(r.IntN(3)), id)
			online[inside] = id
		case 5, 6, 7:
			if id, ok := online[inside]; ok {
				w.hangUp(inside, "", id, uint32(r.IntN(3)))
				delete(online, inside)
			}
		case 8:
			_, err = w.AddPool(ctx, "", pool)
		case 9:
			_, err = w.DrainPool(ctx, "", pool)
		case 10:
			_, _, err = w.RemovePool(ctx, "", pool, false)
		case 11:
			_, _, err = w.RemovePool(ctx, "", pool, true)
		}
		if live := (*inspect.LiveBindingsError)(nil); err != nil && !errors.Is(err, inspect.ErrNotFound) && !errors.As(err, &live) {
			t.Fatalf("step %d: %v", i, err)
		}
		if i%250 == 249 {
			w.halt()
			w.boot()
		}
		w.mu.RLock()
		if err := w.life.Engine().Check(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
		w.mu.RUnlock()
	}
	_, err := w.AddPool(ctx, "", pools[0])
	w.must(err)
	_, _, err = w.RemovePool(ctx, "", pools[1], true)
	w.must(err)
	testenv.Succeeds(t, func() error {
		list, _, err := w.Bindings(ctx, inspect.BindingFilter{}, inspect.BindingKey{}, 1000)
		if err != nil {
			return err
		}
		open := 0
		for _, b := range list {
			switch _, is := online[b.Inside]; {
			case b.State == nat.Held:
				return fmt.Errorf("the hold of %s is not over", b.Inside)
			case pools[1].Contains(b.Outside):
				return fmt.Errorf("%s has a block of %s, which was removed", b.Inside, b.Outside)
			case !is || b.State != nat.Active || w.entry(b.Inside).Gate != nat.GateOpen:
				return fmt.Errorf("%s is %v, online: %v", b.Inside, b.State, is)
			default:
				open++
			}
		}
		if elements := w.nat.Elements(); open != len(online) || elements != open {
			return fmt.Errorf("%d online, %d have a block, the kernel has entries of %d", len(online), open, elements)
		}
		return nil
	})
	drifts, err := w.Reconcile(ctx, false)
	w.must(err)
	for _, d := range drifts {
		if d.Kind != inspect.DriftBindingStale { // of a hold that ended during a crash, where the address was busy at the start
			t.Errorf("drift: %+v", d)
		}
	}
	w.must(w.Quiet(ctx))
	w.check()
}
