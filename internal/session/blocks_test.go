package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

var carol, dave = netip.MustParseAddr("100.64.0.3"), netip.MustParseAddr("100.64.0.4")

// Three blocks on one address.
var threeBlocks = func() (blocks [3]nat.Block) {
	for i := range blocks {
		first := nat.Port(1024 + 512*i)
		blocks[i] = nat.Block{Outside: netip.MustParseAddr("198.51.100.7"), First: first, Last: first + 511}
	}
	return blocks
}()

// newSmallWorld has a pool of threeBlocks.
func newSmallWorld(t *testing.T) *world {
	g := testGroup
	g.Outside = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
	g.LastPort, g.Hold = threeBlocks[2].Last, 3*time.Second
	return newWorld(t, g)
}

// rowOf returns the stored value of the binding that begins with a block, or "" for none.
func (w *world) rowOf(b nat.Block) string {
	w.t.Helper()
	text, err := w.client.HGet(context.Background(), codec.BindingsKey("default", codec.BindingPart(b.Outside)), codec.FormatPlace(b.Place())).Result()
	if !errors.Is(err, redis.Nil) {
		w.must(err)
	}
	return text
}

// addBlock writes a further block to a stored binding, as a later version would.
func (w *world) addBlock(first, further nat.Block) {
	w.t.Helper()
	last := fmt.Sprintf(`"last":%d,`, first.Last)
	text := strings.Replace(w.rowOf(first), last, fmt.Sprintf(`%s"more":[[%d,%d]],`, last, further.First, further.Last), 1)
	w.must(w.client.HSet(context.Background(), codec.BindingsKey("default", codec.BindingPart(first.Outside)), codec.FormatPlace(first.Place()), text).Err())
}

// TestTwoBlocks_I1_I5_I7: a stored binding with two blocks keeps both across starts,
// whichever of them the kernel names, and gives up both at its end.
func TestTwoBlocks_I1_I5_I7(t *testing.T) {
	first, further := threeBlocks[0], threeBlocks[2]
	for _, programmed := range []bool{true, false} {
		t.Run(fmt.Sprintf("programmed=%t", programmed), func(t *testing.T) {
			w := newSmallWorld(t)
			ctx := context.Background()
			w.send(subscriber.EventStart, alice, "a", "1")
			if b := w.awaitState(alice, nat.Active); b.Block != first {
				t.Fatalf("alice has %v", b.Block)
			}
			old := w.flow(alice, 4000)
			w.halt()
			w.addBlock(first, further)
			if programmed {
				w.must(w.nat.Apply(ctx, []nat.Entry{{Inside: alice, Gate: nat.GateOpen, Block: further}}))
			}
			w.boot()
			blocks, _ := nat.Blocks{Block: first}.With(further)
			w.until("the newest block to be programmed", func() bool { return w.entry(alice).Block == further })
			before := w.bindings(alice)[nat.Active]
			if before.Blocks != blocks || before.Sessions != 1 {
				t.Errorf("alice has the ports %s, and %d sessions", before.Ports(), before.Sessions)
			}
			if s := w.flow(alice, 4001); !further.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port())) || s.Outside == old.Outside {
				t.Errorf("a new session is seen as %v", s.Outside)
			}
			w.pools("3 2 0 1")
			w.send(subscriber.EventStart, bob, "b", "2")
			if b := w.awaitState(bob, nat.Active); b.Block != threeBlocks[1] {
				t.Errorf("bob has %v", b.Block)
			}
			w.send(subscriber.EventStart, carol, "c", "3")
			w.until("carol to wait", func() bool { return w.pending(carol) })
			w.whose(alice, first.First, first.Last, further.First, further.Last)
			w.check() // no session is misplaced, and everything is stored

			stored := w.rowOf(first)
			w.halt()
			w.boot()
			if after := w.bindings(alice)[nat.Active]; after.Binding != before.Binding || after.Sessions != 2 {
				t.Errorf("before the start %+v, after it %+v", before, after)
			}
			if again := w.rowOf(first); again != stored {
				t.Errorf("before the start %s is stored, after it %s", stored, again)
			}
			w.check()

			w.until("the inside port of the first session to be pinned", func() bool { return len(w.nat.Pins(alice)) == 1 })
			w.send(subscriber.EventStop, alice, "a", "1")
			held := w.awaitState(alice, nat.Held)
			if r := held.Receipt; held.Blocks != blocks || r == nil || r.Elements != 3 || r.Deleted != 2 {
				t.Errorf("in its hold: ports %s, receipt %+v", held.Ports(), r)
			}
			w.whose(alice, first.First, further.Last)
			w.send(subscriber.EventStart, dave, "d", "4")
			got := []nat.Block{w.awaitState(carol, nat.Active).Block, w.awaitState(dave, nat.Active).Block}
			if got[0] != first || got[1] != further {
				t.Errorf("after the hold the waiting ones have %v", got)
			}
			if n := w.seen.of(subscriber.ReasonStop); n != 1 {
				t.Errorf("%d removals", n)
			}
			w.check()
		})
	}
}

// TestFurtherBlockOfAnother_I1: a stored binding with a block that another subscriber
// has is refused as a whole. Its subscriber gets another one.
func TestFurtherBlockOfAnother_I1(t *testing.T) {
	w := newSmallWorld(t)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.send(subscriber.EventStart, bob, "b", "2")
	before := w.awaitState(bob, nat.Active)
	w.flow(bob, 4000)
	w.halt()
	w.addBlock(threeBlocks[0], before.Block)
	w.boot()
	if b := w.awaitState(alice, nat.Active); b.Len() != 1 || b.Block == before.Block {
		t.Errorf("alice has the ports %s", b.Ports())
	}
	if b := w.bindings(bob)[nat.Active]; b.Blocks != before.Blocks || b.Sessions != 1 {
		t.Errorf("bob had %+v, has %+v", before, b)
	}
	w.check()
}

// TestRefusedBinding_I5: blocks of a refused binding go into a hold, except those of another.
// A subscriber that waits does not get one while sessions of the former holder use it; that
// one gets it back.
func TestRefusedBinding_I5(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		t.Run(fmt.Sprintf("reboot=%t", reboot), func(t *testing.T) {
			w := newSmallWorld(t)
			before := map[netip.Addr]nat.Blocks{}
			for _, inside := range []netip.Addr{carol, dave, bob} {
				w.send(subscriber.EventStart, inside, inside.String(), "1")
				before[inside] = w.awaitState(inside, nat.Active).Blocks
			}
			w.flow(bob, 4000)
			w.send(subscriber.EventStart, alice, "a", "1")
			w.until("alice to wait", func() bool { return w.pending(alice) })
			w.halt()
			w.addBlock(before[bob].Block, before[dave].Block)
			if reboot {
				w.must(w.nat.Apply(context.Background(), []nat.Entry{{Inside: carol}, {Inside: dave}, {Inside: bob}}))
			}
			w.boot()
			for inside, blocks := range before {
				if b := w.awaitState(inside, nat.Active); b.Blocks != blocks {
					t.Errorf("%v had the ports %s, has %s", inside, blocks.Ports(), b.Ports())
				}
			}
			if !w.pending(alice) {
				t.Error("alice does not wait")
			}
			w.pools("3 3 0 0")
			w.check()
		})
	}
}

func (w *world) pending(inside netip.Addr) bool {
	s, err := w.Subscriber(context.Background(), subscriber.Key{Inside: inside})
	return err == nil && s.Pending
}

// pools checks the counts of the only pool: total, used, held and free.
func (w *world) pools(want string) {
	w.t.Helper()
	list, err := w.Pools(context.Background())
	w.must(err)
	if u := list[0]; fmt.Sprint(u.Total, u.Used, u.Held, u.Free) != want {
		w.t.Errorf("the pool is %+v, want %s", u, want)
	}
}

// whose checks that an inside address has ports of the address of threeBlocks.
func (w *world) whose(inside netip.Addr, ports ...nat.Port) {
	w.t.Helper()
	for _, p := range ports {
		b, err := w.LookupOutside(context.Background(), threeBlocks[0].Outside, p, time.Time{})
		if err != nil || b.Inside != inside {
			w.t.Errorf("port %d is of %v, %v", p, b.Inside, err)
		}
	}
	list, _, err := w.Bindings(context.Background(), inspect.BindingFilter{Outside: netip.PrefixFrom(threeBlocks[0].Outside, 32), Inside: netip.PrefixFrom(inside, 32)}, inspect.BindingKey{}, 10)
	if err != nil || len(list) != 1 {
		w.t.Errorf("%d bindings of %v at its outside address, %v", len(list), inside, err)
	}
}
