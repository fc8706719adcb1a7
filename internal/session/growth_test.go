package session

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// growingWorld is a world of one outside address with some blocks, whose clock can be set ahead,
// and which looks at ports often.
type growingWorld struct {
	*world
	ahead  atomic.Int64
	logged syncBuffer

	logins map[netip.Addr]int
	flows  map[netip.Addr][]nftnat.Session
	port   uint16
}

var testGroupOutside = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}

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

// freed lets a subscriber go, and its blocks' hold.
func (w *growingWorld) freed(inside netip.Addr) {
	w.t.Helper()
	w.logout(inside)
	w.awaitState(inside, nat.Held)
	w.pass(time.Minute)
	w.until("the blocks to be free", func() bool { return len(w.bindings(inside)) == 0 })
}

// newGrowingWorld has blocks of 64 ports.
func newGrowingWorld(t *testing.T, blocks, maxBlocks int) *growingWorld {
	t.Helper()
	return newGrowingWorldOf(t, 64, blocks, maxBlocks)
}

func newGrowingWorldOf(t *testing.T, size, blocks, maxBlocks int) *growingWorld {
	t.Helper()
	w := &growingWorld{logins: map[netip.Addr]int{}, flows: map[netip.Addr][]nftnat.Session{}, port: 2000}
	g := testGroup
	g.Outside = testGroupOutside
	g.BlockSize, g.MaxBlocks = size, maxBlocks
	g.LastPort = g.FirstPort + nat.Port(size*blocks-1)
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

// keep checks that every session of the address stands, with its outside port, and that its
// inside port gets the same one towards a new destination.
func (w *growingWorld) keep(inside netip.Addr) {
	w.t.Helper()
	for _, s := range w.flows[inside] {
		again, err := w.nat.Send(unix.IPPROTO_UDP, s.Inside, remote)
		if err != nil || again.Outside != s.Outside {
			w.t.Fatalf("the session from %v was seen as %v, and is seen as %v, %v", s.Inside, s.Outside, again.Outside, err)
		}
	}
	for _, s := range w.flows[inside] {
		w.until(fmt.Sprintf("the inside port of the session from %v to keep its outside port %v", s.Inside, s.Outside), func() bool {
			fresh, err := w.nat.Send(unix.IPPROTO_UDP, s.Inside, netip.MustParseAddrPort("203.0.113.99:99"))
			if err == nil {
				w.nat.Expire(fresh)
			}
			return err == nil && fresh.Outside == s.Outside
		})
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

// threeInARow starts a subscriber in each of three blocks, and stops the first one: the last one
// can only grow apart.
func (w *growingWorld) threeInARow() (middle, gone, last netip.Addr) {
	w.t.Helper()
	list := []netip.Addr{alice, bob, carol}
	for _, inside := range list {
		w.start(inside)
	}
	slices.SortFunc(list, func(a, b netip.Addr) int { return cmp.Compare(w.entry(a).First, w.entry(b).First) })
	gone = list[0]
	w.logout(gone)
	w.awaitState(gone, nat.Held)
	w.pass(time.Minute)
	w.until("a block to be free", func() bool { return len(w.bindings(gone)) == 0 })
	return list[1], gone, list[2]
}

// TestPinsGoWithTheirSessions_NAT35_DEL02: of a subscriber whose block grew apart, the inside
// ports with sessions in the older block are pinned to it, until their sessions end, and no
// longer than the binding; the receipt counts them.
func TestPinsGoWithTheirSessions_NAT35_DEL02(t *testing.T) {
	w := newGrowingWorld(t, 3, 2)
	alice, _, carol := w.threeInARow()
	first := w.entry(carol).Block
	w.begin(carol, 48)
	if apart := w.blocks(carol, 2); apart.Range().Size() != 64 {
		t.Fatalf("carol has the ports %s, want two blocks apart", apart.Ports())
	}
	pins := func(n int) {
		t.Helper()
		w.until(fmt.Sprintf("%d pins", n), func() bool { return len(w.nat.Pins(carol)) == n })
	}
	pins(48)
	for _, p := range w.nat.Pins(carol) {
		if p.Block != first {
			t.Errorf("%v is not pinned to %v", p, first)
		}
	}
	w.keep(carol)
	w.end(carol, 20)
	pins(20)
	w.keep(carol)
	w.halt()
	w.must(w.nat.SetPins(context.Background(), carol, nil)) // as if it had been killed before
	w.must(w.nat.SetPins(context.Background(), alice, []nat.Pin{{Protocol: unix.IPPROTO_UDP, Port: 1, Block: w.entry(alice).Block}}))
	w.boot()
	pins(20)
	w.until("no pin of alice", func() bool { return len(w.nat.Pins(alice)) == 0 })
	w.keep(carol)
	w.logout(carol)
	held := w.awaitState(carol, nat.Held)
	if r := held.Receipt; r == nil || r.Elements != 22 || r.Deleted != 20 {
		t.Errorf("the receipt is %+v, want 22 elements and 20 sessions", r)
	}
	pins(0)
	w.nothingLeft(carol)
	w.check()
}

// TestPinsOutliveMaxBlocks_NAT01_NAT35: a subscriber that has two blocks while its group is
// reloaded, or started, with one block for each keeps the outside ports of its live inside ports.
func TestPinsOutliveMaxBlocks_NAT01_NAT35(t *testing.T) {
	w := newGrowingWorld(t, 3, 2)
	_, _, carol := w.threeInARow()
	w.begin(carol, 48)
	w.blocks(carol, 2)
	pins := func(when string, n int) {
		t.Helper()
		w.until(fmt.Sprintf("%d pins %s", n, when), func() bool { return len(w.nat.Pins(carol)) == n })
		w.keep(carol)
	}
	pins("at first", 48)
	one := w.group
	one.MaxBlocks = 1
	w.must(w.SetGroups(t.Context(), []lsn.GroupConfig{one}))
	pins("after a reload", 48)
	w.halt()
	w.group = one
	w.boot()
	pins("after a start", 48)
	w.halt()
	w.must(w.nat.SetPins(context.Background(), carol, nil)) // as if it had been killed before
	w.boot()
	pins("after another start", 48)
	w.end(carol, 10)
	w.until("ten pins", func() bool { return len(w.nat.Pins(carol)) == 10 })
	w.check()
}

// TestGrowthOfMappedPorts_NAT01_NAT30_NAT35: with learned mappings a block is given back only
// when no mapping leads to it, which may outlast its sessions. Nobody else has its ports before
// the end of its hold.
func TestGrowthOfMappedPorts_NAT01_NAT30_NAT35(t *testing.T) {
	w := newGrowingWorld(t, 3, 2)
	w.must(w.nat.SetPrefixes(context.Background(), testGroup.Inside, testGroupOutside, nftnat.Mappings{EndpointIndependent: testGroupOutside, Open: testGroupOutside, Most: 1000, Pinned: true}))
	_, bob, carol := w.threeInARow()
	w.begin(carol, 48)
	two := w.blocks(carol, 2)
	if two.Range().Size() != 64 {
		t.Fatalf("carol has the ports %s, want two blocks apart", two.Ports())
	}
	w.begin(carol, 10)
	w.keep(carol)
	if n := len(w.nat.Pins(carol)); n != 0 {
		t.Errorf("%d ports are pinned that have learned mappings", n)
	}
	w.end(carol, 0)
	w.pass(2 * time.Minute)
	w.until("new sessions to get ports of the first block", func() bool {
		w.pass(time.Minute)
		return w.entry(carol).Block == two.Block
	})
	for range 3 {
		w.pass(time.Minute)
		if vacant, err := w.nat.Vacant(context.Background(), carol, two.Newest()); err != nil || vacant {
			t.Fatalf("a block with mappings is vacant: %t, %v", vacant, err)
		}
	}
	if b := w.bindings(carol)[nat.Active].Binding; b.Len() != 2 {
		t.Errorf("carol has the ports %s while mappings lead to both blocks", b.Ports())
	}
	w.nat.ExpireMappings()
	w.until("the newest block to be held", func() bool { return w.bindings(carol)[nat.Held].Block == two.Newest() })
	w.login(bob)
	w.until("bob to wait for a block", func() bool { return w.pending(bob) })
	w.check()
	w.pass(time.Minute)
	if b := w.awaitState(bob, nat.Active).Binding; b.Block != two.Newest() {
		t.Errorf("bob has %v, want the block that is free again, %v", b.Block, two.Newest())
	}
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
	w.freed(bob)
	w.until("alice to have two blocks", func() bool {
		w.end(alice, 40)
		w.begin(alice, 20)
		return w.bindings(alice)[nat.Active].Len() == 2
	})
	w.keep(alice)
	w.check()
}

// lookedKernel tells after how many sessions subscribers are to be looked at again.
type lookedKernel struct {
	*memnat.NAT
	after chan int
}

func (k *lookedKernel) LookAgain(inside netip.Addr, after int) {
	k.after <- after
	k.NAT.LookAgain(inside, after)
}

// lateStore saves no bindings before gate is closed.
type lateStore struct {
	Store
	gate chan struct{}
}

func (s *lateStore) SaveBindings(ctx context.Context, group string, put []nat.Binding, remove []nat.Place) error {
	select {
	case <-s.gate:
		return s.Store.SaveBindings(ctx, group, put, remove)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestGrowthOfABusySubscriber_NAT35: a subscriber for whom an executor works is looked at again without
// another session: it may have no port left for one.
func TestGrowthOfABusySubscriber_NAT35(t *testing.T) {
	w := newGrowingWorld(t, 6, 3)
	w.start(alice)
	w.halt()
	kernel := &lookedKernel{w.nat, make(chan int, 1000)}
	store := &lateStore{nil, make(chan struct{})}
	w.kernel, w.lookEvery = kernel, time.Hour
	w.store = func(db *subscriberdb.DB) Store { store.Store = db; return store }
	w.boot()
	w.begin(alice, 50)
	w.until("her second block to be saved", func() bool {
		w.mu.RLock()
		defer w.mu.RUnlock()
		return w.life.Growths().Busy(alice)
	})
	w.nat.LookAgain(alice, 1)
	w.begin(alice, 1)
	for looks := 0; looks < 3; { // the first for the session
		select {
		case after := <-kernel.after:
			if after == againAfter {
				looks++
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d looks while her block is saved", looks)
		}
	}
	close(store.gate)
	w.blocks(alice, 2)
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
