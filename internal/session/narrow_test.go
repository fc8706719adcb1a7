package session

import (
	"context"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// newNarrowWorld is a growingWorld whose blocks have 512 ports, more than nf_nat searches.
func newNarrowWorld(t *testing.T, blocks, maxBlocks int) *growingWorld {
	t.Helper()
	return newGrowingWorldOf(t, 512, blocks, maxBlocks)
}

// part returns the ports of new sessions of an address to remote, if they are not its whole range.
func (w *growingWorld) part(inside netip.Addr) (r nat.Block, ok bool) {
	for _, p := range w.nat.Pins(inside) {
		if p.Remote == remote {
			return p.Block, true
		}
	}
	return r, false
}

// narrowed waits until new sessions of an address to remote get ports of a part of its block.
func (w *growingWorld) narrowed(inside netip.Addr) (r nat.Block) {
	w.t.Helper()
	w.until("new sessions of "+inside.String()+" to get ports of a part of its block", func() (ok bool) {
		r, ok = w.part(inside)
		return ok
	})
	if b := w.bindings(inside)[nat.Active]; r.Size() >= b.Size() || !b.Block.Contains(r.Outside, r.First) || !b.Block.Contains(r.Outside, r.Last) {
		w.t.Fatalf("%v has the ports %s, new sessions get %v", inside, b.Ports(), r)
	}
	return r
}

func (w *growingWorld) wide(inside netip.Addr) {
	w.t.Helper()
	w.until("new sessions of "+inside.String()+" to get ports of its whole range", func() bool {
		_, narrowed := w.part(inside)
		return !narrowed
	})
}

// TestNarrow_NAT35_NAT01_I7: of a subscriber that uses nearly all ports of its only block towards
// one remote endpoint, new sessions to that get ports of the part that has free ones, and of the
// whole block again once it uses fewer; through starts, and a Redis that comes back empty. All
// inside ports keep their outside port, nobody else's change, and all of it goes with the gate.
func TestNarrow_NAT35_NAT01_I7(t *testing.T) {
	w := newNarrowWorld(t, 4, 1)
	block := w.start(alice).Block
	w.start(bob)
	w.begin(alice, 490)
	other := netip.MustParseAddrPort("203.0.113.77:77")
	multi, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(alice, w.flows[alice][3].Inside.Port()), other)
	w.must(err)                                             // an inside port with a second remote endpoint
	if part := w.narrowed(alice); part.Last != block.Last { // the twin takes the first free port
		t.Errorf("the free ports end at %d, new sessions get %v", block.Last, part)
	}
	w.keep(alice)
	if w.begin(alice, 6) != 6 {
		t.Error("not all new sessions found a port")
	}
	w.keep(alice)
	w.whose(alice, block.First, block.Last)
	if r := w.entry(alice).Block; r != block || len(w.nat.Pins(bob)) > 0 {
		t.Errorf("new sessions of alice get %v, bob has the pins %v", r, w.nat.Pins(bob))
	}
	w.check()
	w.nat.Expire(w.flows[alice][3]) // its other session stands, and it comes back to remote
	w.until("the inside port with a session elsewhere to be pinned", func() bool {
		for _, p := range w.nat.Pins(alice) {
			if !p.Remote.IsValid() && p.Port == nat.Port(multi.Inside.Port()) && p.Block == block {
				return true
			}
		}
		return false
	})
	again, err := w.nat.Send(unix.IPPROTO_UDP, multi.Inside, remote)
	if w.must(err); again.Outside != multi.Outside {
		t.Errorf("the inside port of %v got %v", multi.Outside, again.Outside)
	}
	w.flows[alice][3] = again

	w.halt()
	w.nat.CountBegun(0) // the next one counts anew
	w.boot()
	w.narrowed(alice)
	w.keep(alice)
	w.check()

	w.end(alice, 300)
	w.wide(alice)
	w.keep(alice)
	w.until("nothing to be pinned", func() bool { return len(w.nat.Pins(alice)) == 0 })
	w.check()

	w.begin(alice, 195)
	w.narrowed(alice)
	w.logout(alice)
	held := w.awaitState(alice, nat.Held)
	if r := held.Receipt; held.Block != block || r == nil || r.Elements < 2 || len(w.nat.Pins(alice)) > 0 {
		t.Errorf("the receipt is %+v, want two elements or more; pins are left: %v", r, w.nat.Pins(alice))
	}
	w.nothingLeft(alice)

	block = w.start(alice).Block
	w.flows[alice] = nil
	w.begin(alice, 500)
	w.narrowed(alice)
	w.halt()
	w.nat.CountBegun(0)
	w.must(w.client.FlushAll(context.Background()).Err())
	w.boot()
	w.whose(alice, block.First, block.Last)
	w.narrowed(alice)
	w.keep(alice)
	w.until("the record of alice to be written back", func() bool { return w.bindings(alice)[nat.Active].Block == block })
	w.check()
}

// TestPartsOfAKilledDaemonGo_I7: pins of remote endpoints that nothing asks for any more, as a
// daemon leaves that is killed, are taken away after a start.
func TestPartsOfAKilledDaemonGo_I7(t *testing.T) {
	w := newNarrowWorld(t, 4, 1)
	b := w.start(alice)
	w.begin(alice, 10)
	w.halt()
	stale := nat.Pin{Protocol: unix.IPPROTO_UDP, Remote: remote, Block: b.Block}
	stale.Block.Last = stale.Block.First + 127
	w.must(w.nat.SetPins(context.Background(), alice, []nat.Pin{stale}))
	w.boot()
	w.wide(alice)
	w.keep(alice)
	w.check()
}

// TestNarrowThenGrow_NAT35_NAT32: where no block is free new sessions get ports of a part of a
// block; once one is free, they get it, and have the whole range.
func TestNarrowThenGrow_NAT35_NAT32(t *testing.T) {
	w := newNarrowWorld(t, 2, 2)
	w.start(alice)
	w.start(bob)
	w.begin(alice, 490)
	w.narrowed(alice)
	w.freed(bob)
	w.until("alice to have two blocks", func() bool {
		w.begin(alice, 1)
		return w.bindings(alice)[nat.Active].Len() == 2
	})
	w.wide(alice)
	w.keep(alice)
	w.check()
}

// TestNarrowMappedPorts_NAT01_NAT35: with learned mappings, an inside port keeps its mapping while
// new ones get ports of a part of the block.
func TestNarrowMappedPorts_NAT01_NAT35(t *testing.T) {
	w := newNarrowWorld(t, 2, 1)
	w.must(w.nat.SetPrefixes(context.Background(), testGroup.Inside, testGroupOutside, nftnat.Mappings{EndpointIndependent: testGroupOutside, Most: 10_000, Pinned: true}))
	w.start(alice)
	w.begin(alice, 490)
	part := w.narrowed(alice)
	w.keep(alice)
	if pins := w.nat.Pins(alice); len(pins) != 1 {
		t.Errorf("pins are %v, want that of the remote endpoint alone", pins)
	}
	s, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(alice, 1), remote)
	w.must(err)
	if !part.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port())) {
		t.Errorf("a new inside port got %v, not in %v", s.Outside, part)
	}
	w.check()
}

// TestPlacesOfNarrowedAreFreed_NAT35_I10: a subscriber with a part of its range that has gone leaves
// its place to another one.
func TestPlacesOfNarrowedAreFreed_NAT35_I10(t *testing.T) {
	w := newNarrowWorld(t, 4, 1)
	w.halt()
	w.mostNarrowed = 1
	w.nat.CountBegun(0)
	w.boot()
	w.start(alice)
	w.begin(alice, 490)
	w.narrowed(alice)
	w.logout(alice)
	w.awaitState(alice, nat.Held)
	w.start(bob)
	w.begin(bob, 490)
	w.until("new sessions of bob to get ports of a part of the block", func() bool {
		w.begin(bob, 8)
		w.end(bob, 490)
		_, narrowed := w.part(bob)
		return narrowed
	})
	w.keep(bob)
	w.check()
}
