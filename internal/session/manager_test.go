package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

var (
	alice = netip.MustParseAddr("100.64.0.10")
	bob   = netip.MustParseAddr("100.64.0.11")
)

func TestStopRemovesAndFrees_DEL01_DEL10(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	b := w.awaitState(alice, nat.Active)
	w.flow(alice, 4000)
	w.send(subscriber.EventStop, alice, "a", "1")
	held := w.awaitState(alice, nat.Held)
	if held.Block != b.Block || held.UserName != "a" || held.ReleasedAt.IsZero() {
		t.Errorf("held %+v, was %+v", held, b)
	}
	w.nothingLeft(alice)
	w.until("the block to be free", func() bool { return len(w.bindings(alice)) == 0 })
	w.until("the removal to be counted", func() bool { return w.seen.of(subscriber.ReasonStop) == 1 })
	w.check()
}

func TestRawDeletion_DEL08(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.flow(alice, 4000)
	if err := w.client.Unlink(context.Background(), "sessiond:{default}:sub:"+alice.String()).Err(); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft(alice)
	w.until("the removal to be counted", func() bool { return w.seen.of(subscriber.ReasonRemovedInDatabase) == 1 })
}

func TestExpiry_DEL09_SES18(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	if err := w.client.PExpire(context.Background(), "sessiond:{default}:sub:"+alice.String(), time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft(alice)
}

// TestTakeover_SES07_SES08: the next session on an address inherits nothing.
// Another user gets another block, the same user its own again.
func TestTakeover_SES07_SES08(t *testing.T) {
	for _, removal := range []bool{true, false} {
		t.Run(fmt.Sprintf("removal=%t", removal), func(t *testing.T) {
			w := newWorld(t, testGroup)
			w.toggle(removal)
			w.send(subscriber.EventStart, alice, "a", "1")
			first := w.awaitState(alice, nat.Active)
			w.flow(alice, 4000)

			w.send(subscriber.EventStart, alice, "z", "2")
			w.until("the second user's binding", func() bool { return w.bindings(alice)[nat.Active].UserName == "z" })
			second := w.bindings(alice)[nat.Active]
			if second.Block == first.Block {
				t.Errorf("another user got the block %+v at once", second.Block)
			}
			if n := w.nat.SessionCount(alice); n != 0 {
				t.Errorf("%d sessions were inherited", n)
			}
			w.flow(alice, 4001)
			w.send(subscriber.EventStart, alice, "z", "3") // same user, new session
			w.until("the third session's binding", func() bool { return w.bindings(alice)[nat.Active].AcctSessionID == "3" })
			if third := w.bindings(alice)[nat.Active]; third.Block != second.Block {
				t.Errorf("the same user had %+v and got %+v", second.Block, third.Block)
			}
			if n := w.nat.SessionCount(alice); n != 0 {
				t.Errorf("%d sessions survived a new session of the same user", n)
			}
			w.check()
		})
	}
}

func (w *world) toggle(removal bool) {
	w.t.Helper()
	mode := inspect.RemovalOff
	if removal {
		mode = inspect.RemovalOn
	}
	w.mode(mode)
}

func (w *world) mode(m inspect.RemovalMode) {
	w.t.Helper()
	s := inspect.Settings{Removal: m}
	if _, err := w.UpdateSettings(context.Background(), s, []string{inspect.SettingRemoval}); err != nil {
		w.t.Fatal(err)
	}
}

func TestToggleOff_DEL11(t *testing.T) {
	w := newWorld(t, testGroup)
	w.toggle(false)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	s := w.flow(alice, 4000)
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Draining)
	w.until("the gate to be narrowed", func() bool { return w.entry(alice).Gate == nat.GateDraining })
	if err := w.nat.Receive(s); err != nil {
		t.Errorf("the existing session does not pass: %v", err)
	}
	if _, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(alice, 4001), remote); !errors.Is(err, memnat.ErrDropped) {
		t.Errorf("a new session: %v, want dropped", err)
	}
	w.halt()
	w.boot() // the toggle and the draining slots survive
	if got, _ := w.Settings(context.Background()); got.Removal != inspect.RemovalOff {
		t.Error("the toggle did not survive the restart")
	}
	w.awaitState(alice, nat.Draining)
	w.nat.Expire(s)
	w.nothingLeft(alice)
	w.until("the block to be free", func() bool { return len(w.bindings(alice)) == 0 })
	w.check()
}

func TestToggleOnCutsDraining(t *testing.T) {
	w := newWorld(t, testGroup)
	w.toggle(false)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.flow(alice, 4000)
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Draining)
	w.toggle(true)
	w.nothingLeft(alice)
	w.check()
}

func TestPoolExhausted_NAT37(t *testing.T) {
	g := testGroup
	g.Outside = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
	g.FirstPort, g.LastPort = 1024, 1535
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.send(subscriber.EventStart, bob, "b", "2")
	w.until("bob to wait", func() bool {
		s, err := w.Subscriber(context.Background(), subscriber.Key{Inside: bob})
		return err == nil && s.Pending
	})
	if e := w.entry(bob); e.Gate != nat.GateClosed {
		t.Errorf("a waiting subscriber's gate is %+v", e)
	}
	w.send(subscriber.EventInterim, bob, "b", "2") // keeps its one place in the queue
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(bob, nat.Active)
	w.check()
}

// TestRestart_I7_SES19: a Manager that dies at any time leaves a state that the
// next one takes over: present bindings stay, ended ones go.
func TestRestart_I7_SES19(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	before := w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	w.flow(alice, 4000)
	w.flow(bob, 4000)
	w.halt()
	w.send(subscriber.EventStop, bob, "b", "2") // acknowledged by another instance, or just before the crash
	w.boot()
	if after := w.bindings(alice)[nat.Active]; after.Block != before.Block || after.Sessions != 1 {
		t.Errorf("alice had %+v, has %+v", before, after)
	}
	if w.entry(bob).Gate != nat.GateClosed || w.nat.SessionCount(bob) != 0 {
		t.Error("bob ended while nobody looked, and is still there when ready")
	}
	w.check()
}

// TestDatabaseEmptied_I6: a database that lost everything disconnects no
// subscriber, and gets its data back.
func TestDatabaseEmptied_I6(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			w := newWorld(t, testGroup)
			w.send(subscriber.EventStart, alice, "a", "1")
			before := w.awaitState(alice, nat.Active)
			w.flow(alice, 4000)
			if restart {
				w.halt()
			}
			if err := w.client.FlushAll(context.Background()).Err(); err != nil {
				t.Fatal(err)
			}
			if restart {
				w.boot()
			}
			w.until("the alarm", func() bool { return w.suspicion() != "" })
			w.send(subscriber.EventInterim, alice, "a", "1")
			w.until("the all-clear", func() bool { return w.suspicion() == "" })
			if after := w.bindings(alice)[nat.Active]; after.Block != before.Block || after.Sessions != 1 || after.UserName != "a" {
				t.Errorf("alice had %+v, has %+v", before, after)
			}
			w.check()
			w.send(subscriber.EventStop, alice, "a", "1")
			w.nothingLeft(alice)
		})
	}
}

func (w *world) suspicion() string {
	s, err := w.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return s.DatabaseSuspect
}

// TestDriftIsMended: elements that others change in the kernel are restored.
func TestDriftIsMended(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	b := w.awaitState(alice, nat.Active)
	stray := nat.Entry{Inside: bob, Gate: nat.GateOpen, Block: nat.Block{Outside: b.Outside, First: 60416, Last: 60927}}
	if err := w.nat.Apply(context.Background(), []nat.Entry{{Inside: alice}, stray}); err != nil {
		t.Fatal(err)
	}
	found := map[inspect.DriftKind]bool{}
	dry, err := w.Reconcile(context.Background(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dry {
		found[d.Kind] = true
		if d.Mended {
			t.Errorf("a dry run mended %+v", d)
		}
	}
	if !found[inspect.DriftElementMissing] || !found[inspect.DriftElementOrphaned] {
		t.Errorf("found %v", found)
	}
	if _, err := w.Reconcile(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	w.until("alice's gate to be open again", func() bool { return w.entry(alice).Gate == nat.GateOpen })
	w.nothingLeft(bob)
	w.check()
}

// TestRandomWalk_DEL10_I1_I5: thousands of random events, with restarts and raw
// deletions between them, and Stops of which some grant a short grace time. At
// rest, exactly the subscribers online in the simple model have an open gate,
// and no block is lost.
func TestRandomWalk_DEL10_I1_I5(t *testing.T) { walkAtRandom(t, guard.Limits{}) }

// TestRandomWalkGuarded_DEL13: the same with a guard that suspends most of the
// raw deletions. Once they are confirmed, the result is as without the guard.
func TestRandomWalkGuarded_DEL13(t *testing.T) {
	walkAtRandom(t, guard.Limits{Minimum: 1, Removed: 0.05, Window: time.Hour})
}

func walkAtRandom(t *testing.T, limits guard.Limits) {
	steps := 1500
	if testing.Short() {
		steps = 200
	}
	g := graceGroup(20 * time.Millisecond)
	g.Hold = 5 * time.Millisecond
	w := newWorld(t, g, func(w *world) { w.guard = limits })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	online := map[netip.Addr]string{} // address to session id: the model
	for i := range steps {
		inside := netip.AddrFrom4([4]byte{100, 64, 1, byte(r.IntN(40))})
		switch id := fmt.Sprint(i); r.IntN(10) {
		case 0, 1, 2, 3:
			w.send(subscriber.EventStart, inside, "u"+fmt.Sprint(r.IntN(3)), id)
			online[inside] = id
		case 4, 5:
			w.send(subscriber.EventStop, inside, "", "never started "+id)
		case 6, 7, 8:
			if id, ok := online[inside]; ok {
				w.hangUp(inside, "", id, uint32(r.IntN(3)))
				delete(online, inside)
			}
		case 9:
			if err := w.client.Del(context.Background(), "sessiond:{default}:sub:"+inside.String()).Err(); err != nil {
				t.Fatal(err)
			}
			delete(online, inside)
		}
		if i%500 == 499 {
			w.halt()
			w.boot()
		}
		if r.IntN(100) == 0 {
			w.confirmAll()
		}
	}
	testenv.Succeeds(t, func() error {
		w.confirmAll()
		return w.serveExactly(online)
	})
	w.check()
}

func (w *world) confirmAll() {
	w.t.Helper()
	everybody := inspect.RemovalFilter{Inside: netip.MustParsePrefix("0.0.0.0/0")}
	if _, err := w.ConfirmRemovals(context.Background(), everybody, ""); err != nil {
		w.t.Fatal(err)
	}
}

// serveExactly returns an error unless the kernel has an open gate for each online address
// and no other entry, and all other blocks are free. The number of entries alone may be right
// while some gates are not open yet, and as many other addresses are not cut yet.
func (w *world) serveExactly(online map[netip.Addr]string) error {
	n := len(online)
	for inside := range online {
		if w.entry(inside).Gate != nat.GateOpen {
			return fmt.Errorf("%s is online and its gate is not open", inside)
		}
	}
	if got := w.nat.Elements(); got != n {
		return fmt.Errorf("%d online, the kernel has entries of %d", n, got)
	}
	pools, err := w.Pools(context.Background())
	if err == nil && (pools[0].Used != n || pools[0].Free != pools[0].Total-n) {
		err = fmt.Errorf("%d online, pool %+v", n, pools[0])
	}
	return err
}
