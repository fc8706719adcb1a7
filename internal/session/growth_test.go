package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// growingWorld is a world of one outside address with some blocks of 64 ports, whose clock
// can be set ahead, and which looks at ports often.
type growingWorld struct {
	*world
	ahead  atomic.Int64
	logged syncBuffer

	logins map[netip.Addr]int
	flows  map[netip.Addr][]nftnat.Session
	port   uint16
}

// syncBuffer is a log that tests read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newGrowingWorld(t *testing.T, blocks, maxBlocks int) *growingWorld {
	t.Helper()
	w := &growingWorld{logins: map[netip.Addr]int{}, flows: map[netip.Addr][]nftnat.Session{}, port: 2000}
	g := testGroup
	g.Outside = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
	g.BlockSize, g.MaxBlocks = 64, maxBlocks
	g.LastPort = g.FirstPort + nat.Port(64*blocks-1)
	g.Hold = time.Minute
	w.world = newWorld(t, g, func(x *world) {
		x.ttl, x.lookEvery, x.logs = time.Hour, 20*time.Millisecond, &w.logged
		x.shifted = func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	})
	return w
}

// pass sets the clock ahead.
func (w *growingWorld) pass(d time.Duration) {
	w.ahead.Add(int64(d))
	signal(w.timers.wake)
}

// login starts a session of its own user, and logout stops it.
func (w *growingWorld) login(inside netip.Addr) {
	w.logins[inside]++
	w.send(subscriber.EventStart, inside, "u"+inside.String(), fmt.Sprint(inside, w.logins[inside]))
}

func (w *growingWorld) logout(inside netip.Addr) {
	w.send(subscriber.EventStop, inside, "u"+inside.String(), fmt.Sprint(inside, w.logins[inside]))
}

func (w *growingWorld) start(inside netip.Addr) nat.Binding {
	w.t.Helper()
	w.login(inside)
	return w.awaitState(inside, nat.Active).Binding
}

// begin begins sessions, each from a port of its own. It stops where the block is full.
func (w *growingWorld) begin(inside netip.Addr, sessions int) (begun int) {
	w.t.Helper()
	for range sessions {
		w.port++
		s, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(inside, w.port), remote)
		if errors.Is(err, memnat.ErrDropped) {
			return begun
		}
		w.must(err)
		w.flows[inside] = append(w.flows[inside], s)
		begun++
	}
	return begun
}

// end ends the sessions from the n-th on.
func (w *growingWorld) end(inside netip.Addr, from int) {
	for _, s := range w.flows[inside][from:] {
		w.nat.Expire(s)
	}
	w.flows[inside] = w.flows[inside][:from]
}

// keep checks that every session of the address stands, with its outside port.
func (w *growingWorld) keep(inside netip.Addr) {
	w.t.Helper()
	for _, s := range w.flows[inside] {
		again, err := w.nat.Send(unix.IPPROTO_UDP, s.Inside, remote)
		if err != nil || again.Outside != s.Outside {
			w.t.Fatalf("the session from %v was seen as %v, and is seen as %v, %v", s.Inside, s.Outside, again.Outside, err)
		}
	}
}

// blocks waits until the address has so many blocks in force.
func (w *growingWorld) blocks(inside netip.Addr, n int) nat.Binding {
	w.t.Helper()
	var b nat.Binding
	w.until(fmt.Sprintf("%v to have %d blocks", inside, n), func() bool {
		b = w.bindings(inside)[nat.Active].Binding
		_, _, r, rests := w.resizable(inside)
		return rests && b.Len() == n && w.entry(inside).Block == r
	})
	return b
}

func (w *growingWorld) resizable(inside netip.Addr) (string, nat.Blocks, nat.Block, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.life.Growths().Resizable(inside)
}

func (w *growingWorld) resized(how inspect.Growth) int {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	return w.seen.resized[how]
}

// TestGrowth_NAT35_I7: a subscriber that uses three quarters of its ports gets the neighbour
// of its block, then a block apart; all sessions keep their ports, also across starts. What
// it no longer needs is given back: held, and free after the hold.
func TestGrowth_NAT35_I7(t *testing.T) {
	w := newGrowingWorld(t, 5, 3)
	first := w.start(alice).Block
	w.start(bob)
	w.start(carol)
	w.begin(alice, 47)
	w.keep(alice)
	w.begin(alice, 1)
	two := w.blocks(alice, 2)
	if r := w.entry(alice).Block; r != two.Range() || r.Size() != 128 || two.Block != first || two.GrownAt.IsZero() {
		t.Errorf("alice had %v, has the ports %s, new sessions get %v", first, two.Ports(), r)
	}
	w.start(dave) // takes the last block: nobody has room but those with two
	w.keep(alice)
	w.check()

	stored := w.rowOf(first)
	w.halt()
	w.boot()
	if b := w.blocks(alice, 2); b.Blocks != two.Blocks || !b.GrownAt.Equal(two.GrownAt) || w.rowOf(first) != stored {
		t.Errorf("before the start %+v, after it %+v", two, b)
	}
	w.keep(alice)

	w.logout(dave)
	w.awaitState(dave, nat.Held)
	w.pass(time.Minute)
	w.until("a block to be free", func() bool { return len(w.bindings(dave)) == 0 })
	w.begin(alice, 48)
	three := w.blocks(alice, 3)
	if r := w.entry(alice).Block; r != three.Newest() || r.Size() != 64 {
		t.Errorf("alice has the ports %s, new sessions get %v", three.Ports(), r)
	}
	if w.begin(alice, 10) != 10 {
		t.Error("not all new sessions got a port")
	}
	w.keep(alice)
	w.whose(alice, three.First, three.Last, three.Newest().First, three.Newest().Last)
	if _, err := w.LookupOutside(context.Background(), three.Outside, three.Newest().First, three.GrownAt.Add(-time.Millisecond)); err == nil {
		t.Error("the new block is said to have been hers before she got it")
	}
	w.check()

	w.end(alice, 30)
	w.pass(2 * time.Minute) // the first look after it begins the time
	w.until("new sessions to get other ports", func() bool {
		w.pass(time.Minute)
		return w.entry(alice).Block != three.Newest()
	})
	w.keep(alice)
	w.until("the newest block to be held", func() bool { return w.bindings(alice)[nat.Held].Block == three.Newest() })
	if b := w.blocks(alice, 2); b.Blocks != two.Blocks {
		t.Errorf("alice has the ports %s, want %s", b.Ports(), two.Ports())
	}
	w.until("the row of the hold", func() bool {
		return strings.Contains(w.rowOf(three.Newest()), `"held":true`) && w.rowOf(first) != stored && !strings.Contains(w.rowOf(first), "],[")
	})
	w.check()
	w.pass(time.Minute)
	w.until("the held block to be free", func() bool { _, held := w.bindings(alice)[nat.Held]; return !held })
	w.until("one block to be left", func() bool { w.pass(time.Minute); return w.bindings(alice)[nat.Active].Len() == 1 })
	w.keep(alice)
	w.check()

	w.logout(alice)
	w.nothingLeft(alice)
	w.check()
}

// TestGrowthRefused_NAT32_NAT33: where there is no room, and at max_blocks, the sessions of a
// subscriber stay and new ones get what is left; that is counted and logged once for all.
func TestGrowthRefused_NAT32_NAT33(t *testing.T) {
	w := newGrowingWorld(t, 2, 2)
	w.start(alice)
	w.start(bob)
	for _, inside := range []netip.Addr{alice, bob} {
		if n := w.begin(inside, 70); n != 64 {
			t.Errorf("%d sessions of %v got one of 64 ports", n, inside)
		}
	}
	w.until("both to be refused a block", func() bool { return w.resized(inspect.GrowthNoRoom) == 2 })
	w.until("a log line about both", func() bool {
		return strings.Contains(w.logged.String(), "get no further block\" group=default subscribers=")
	})
	w.keep(alice)
	w.keep(bob)
	w.check()
	w.logout(bob)
	w.awaitState(bob, nat.Held)
	w.pass(time.Minute)
	w.until("the other block to be free", func() bool { return len(w.bindings(bob)) == 0 })
	w.until("alice to have two blocks", func() bool {
		w.end(alice, 40)
		w.begin(alice, 20)
		return w.bindings(alice)[nat.Active].Len() == 2
	})
	w.keep(alice)
	w.check()
}

// TestGrowthWithoutDatabase_I5_I6: a start that finds the database empty takes over all blocks
// of a subscriber: those that the kernel names, and those in which it has sessions.
func TestGrowthWithoutDatabase_I5_I6(t *testing.T) {
	w := newGrowingWorld(t, 6, 3)
	w.start(bob)
	w.start(carol)
	w.begin(bob, 60)
	w.start(alice)
	w.start(dave)
	w.begin(carol, 60)
	want := map[netip.Addr]nat.Binding{bob: w.blocks(bob, 2), carol: w.blocks(carol, 2)}
	w.halt()
	w.must(w.client.FlushAll(context.Background()).Err())
	w.boot()
	for inside, b := range want {
		got := w.awaitState(inside, nat.Active)
		ports := map[nat.Block]bool{}
		for x := range got.All() {
			ports[x] = true
		}
		for x := range b.All() {
			if !ports[x] || got.Len() != b.Len() {
				t.Errorf("%v had the ports %s, has %s", inside, b.Ports(), got.Ports())
			}
		}
		w.keep(inside)
	}
	if _, err := w.Reconcile(context.Background(), false); err != nil { // with an audit
		t.Fatal(err)
	}
	w.keep(bob)
	w.keep(carol)
	w.until("the database to be whole", func() bool { return w.NotReady() == nil })
	w.check()
}

// TestRandomGrowth_I1_I5_NAT35: subscribers come and go, begin and end sessions, while blocks
// are added and given back, and the daemon restarts. No session changes its outside port, no
// port has two owners, and nothing is left at the end.
func TestRandomGrowth_I1_I5_NAT35(t *testing.T) {
	w := newGrowingWorld(t, 12, 3)
	rnd := rand.New(rand.NewPCG(3, 5))
	online := map[netip.Addr]bool{}
	for step := range 120 {
		inside := netip.AddrFrom4([4]byte{100, 64, 1, byte(rnd.IntN(5))})
		switch n := rnd.IntN(12); {
		case n < 2 && online[inside]:
			w.end(inside, 0)
			delete(w.flows, inside)
			w.logout(inside)
			w.until("the end of "+inside.String(), func() bool {
				_, live := w.bindings(inside)[nat.Active]
				return !live && w.nat.SessionCount(inside) == 0
			})
			delete(online, inside)
		case !online[inside]:
			w.login(inside)
			w.until("a block", func() bool { _, ok := w.bindings(inside)[nat.Active]; return ok || w.pending(inside) })
			_, online[inside] = w.bindings(inside)[nat.Active]
			if !online[inside] {
				delete(online, inside)
			}
		case n < 7:
			w.begin(inside, 10+rnd.IntN(60))
		case n < 10:
			w.end(inside, rnd.IntN(1+len(w.flows[inside])))
		case n == 10:
			w.pass(90 * time.Second)
		case step%3 == 0:
			w.halt()
			w.boot()
		}
		for inside := range w.flows {
			w.keep(inside)
		}
		if step%10 == 0 {
			w.check()
		}
	}
	if w.resized(inspect.GrowthInPlace) == 0 {
		t.Error("nothing has grown since the last start")
	}
	for a := range byte(5) {
		inside := netip.AddrFrom4([4]byte{100, 64, 1, a})
		w.logout(inside)
		w.nothingLeft(inside)
	}
	w.until("all blocks to be free", func() bool {
		w.pass(time.Minute)
		list, err := w.Pools(context.Background())
		return err == nil && list[0].Free == 12
	})
	w.check()
}
