package session

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// ownGroup is a group in deterministic mode with 16 inside addresses and 32 blocks.
func ownGroup() lsn.GroupConfig {
	g := testGroup
	g.Inside = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/28")}
	g.Outside = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/31")}
	g.LastPort, g.BlockSize, g.Deterministic = 17*1024-1, 1024, true
	return g
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// wantOwn waits until an address has the block of the formula, in engine and kernel.
func (w *world) wantOwn(inside netip.Addr) {
	w.t.Helper()
	c := w.group
	f := c.Formula()
	want, _ := f.Block(inside)
	if got := w.awaitState(inside, nat.Active); got.Blocks != (nat.Blocks{Block: want}) {
		w.t.Errorf("%v has %v:%s, want %v", inside, got.Outside, got.Ports(), want)
	}
	if e := w.entry(inside); e.Block != want {
		w.t.Errorf("the kernel has %v for %v, want %v", e.Block, inside, want)
	}
}

// TestDeterministic: every subscriber at an address gets the block of the formula, at once after
// another one, and after a restart and the loss of the database.
func TestDeterministic_NAT38(t *testing.T) {
	g := ownGroup()
	g.Hold = time.Hour
	w := newWorld(t, g)
	first, last := netip.MustParseAddr("100.64.0.0"), netip.MustParseAddr("100.64.0.15")
	w.send(subscriber.EventStart, last, "zoe", "1")
	w.send(subscriber.EventStart, first, "alice", "2")
	w.wantOwn(last)
	w.wantOwn(first)
	w.flow(first, 5000)
	w.send(subscriber.EventStop, first, "alice", "2")
	w.nothingLeft(first)
	w.awaitState(first, nat.Held)
	w.send(subscriber.EventStart, first, "bob", "3") // the hold is an hour
	w.wantOwn(first)
	w.flow(first, 6000)
	w.send(subscriber.EventStart, first, "carol", "4") // takes the address over
	w.until("carol to have the block", func() bool {
		return w.bindings(first)[nat.Active].UserName == "carol" && w.nat.SessionCount(first) == 0
	})
	w.wantOwn(first)
	w.check()
	w.halt()
	w.boot()
	w.wantOwn(first)
	w.wantOwn(last)
	w.halt()
	w.must(w.client.FlushAll(context.Background()).Err())
	w.boot()
	w.wantOwn(first)
	w.check()
}

// TestBecomesDeterministic: a reload leaves live bindings where they are; new ones have the
// block of the formula, and wait while another address has it. A restart changes nothing of
// that. Both formulas are logged.
func TestBecomesDeterministic_NAT38_I1_I7(t *testing.T) {
	g := ownGroup()
	g.Deterministic = false
	logs := &lockedBuffer{}
	w := newWorld(t, g, func(w *world) { w.logs = logs })
	taker, owner, other := netip.MustParseAddr("100.64.0.9"), netip.MustParseAddr("100.64.0.0"), netip.MustParseAddr("100.64.0.5")
	w.send(subscriber.EventStart, taker, "zoe", "1")
	before := w.awaitState(taker, nat.Active).Blocks
	formula := g.Formula()
	if own, _ := formula.Block(owner); before.Block != own {
		t.Fatalf("the first block given is %v, not that of %v: %v", before.Block, owner, own)
	}
	w.flow(taker, 5000)
	g.Deterministic = true
	w.group = g
	w.must(w.SetGroups(context.Background(), []lsn.GroupConfig{g}))
	text := logs.String()
	for _, part := range []string{"deterministic mapping changed", "earlier=dynamic", "inside: [100.64.0.0/28], outside: [198.51.100.0/31], port_range: 1024-17407, block_size: 1024", "bindings=1"} {
		if !strings.Contains(text, part) {
			t.Errorf("the log does not have %q", part)
		}
	}
	w.send(subscriber.EventStart, other, "bob", "2")
	w.wantOwn(other)
	w.send(subscriber.EventStart, owner, "alice", "3")
	w.until("alice to wait", func() bool { return w.pending(owner) })
	for range 2 {
		if b := w.awaitState(taker, nat.Active); b.Blocks != before {
			t.Errorf("zoe had %s, has %s", before.Ports(), b.Ports())
		}
		if !w.pending(owner) || w.nat.SessionCount(taker) != 1 {
			t.Errorf("alice waits: %v; zoe has %d sessions", w.pending(owner), w.nat.SessionCount(taker))
		}
		w.wantOwn(other)
		w.check()
		w.halt()
		w.boot()
	}
	if n := strings.Count(logs.String(), "deterministic mapping in force"); n != 2 {
		t.Errorf("the formula was logged at %d starts, want 2", n)
	}
	w.send(subscriber.EventStop, taker, "zoe", "1")
	w.wantOwn(owner)
	w.send(subscriber.EventStart, taker, "zoe", "4")
	w.wantOwn(taker)
	w.check()
}

// TestDeterministicPoolsAreConfigured: blocks follow from the order of the prefixes in the
// configuration, so they do not change at run time. A removal of before the mode ends, and
// cuts nobody any more.
func TestDeterministicPoolsAreConfigured_NAT27_NAT38(t *testing.T) {
	g := ownGroup()
	g.Deterministic = false
	w := newWorld(t, g)
	ctx := context.Background()
	if _, _, err := w.RemovePool(ctx, "", g.Outside[0], true); err != nil {
		t.Fatal(err)
	}
	g.Deterministic = true
	w.group = g
	w.must(w.SetGroups(ctx, []lsn.GroupConfig{g}))
	if _, _, err := w.RemovePool(ctx, "", g.Outside[0], true); !errors.Is(err, inspect.ErrPoolConflict) || !strings.Contains(err.Error(), "deterministic") {
		t.Errorf("removal: %v", err)
	}
	inside := netip.MustParseAddr("100.64.0.3")
	w.send(subscriber.EventStart, inside, "alice", "1")
	w.wantOwn(inside)
	w.flow(inside, 5000)
	w.until("the removal to be forgotten", func() bool {
		changes, err := w.db.PoolChanges(ctx, g.Name)
		return err == nil && len(changes) == 0
	})
	w.Manager.served.keepPools(ctx)
	w.wantOwn(inside)
	if n := w.nat.SessionCount(inside); n != 1 {
		t.Errorf("alice has %d sessions, want 1", n)
	}
	w.check()
}
