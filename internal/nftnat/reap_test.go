package nftnat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/testenv"
)

// flood sends datagrams from one address to port after port of another, each a
// session of its own, until the returned function is called.
func flood(t *testing.T, w wireTest, inbound bool) (stop func()) {
	t.Helper()
	from, to, first := w.Subscriber, w.Remotes[0], 8000
	local := netip.AddrPortFrom(alice, 6000)
	if inbound {
		from, to, first = w.Internet, eip, 40_000
		local = netip.AddrPortFrom(w.Remotes[1], 6000)
	}
	conn, err := from.ListenUDP(local)
	if err != nil {
		t.Fatal(err)
	}
	return floodPorts(conn, to, first, 20_000)
}

// floodPorts sends to one of so many ports of an address after the other, until the
// returned function is called, which closes the connection.
func floodPorts(conn *net.UDPConn, to netip.Addr, first, ports int) (stop func()) {
	var done atomic.Bool
	var task sync.WaitGroup
	task.Go(func() {
		for i := 0; !done.Load(); i++ {
			_, _ = conn.WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(to, uint16(first+i%ports)))
		}
	})
	return sync.OnceFunc(func() { done.Store(true); task.Wait(); _ = conn.Close() })
}

// TestCutUnderFlood_DEL04_I5 floods the gate from both sides while it closes: packets that
// were just past it must not leave a session behind the receipt.
func TestCutUnderFlood_DEL04_I5(t *testing.T) {
	w := newWireTest(t)
	run(t, w.Lab, "nft", `table ip inbound {
		chain c {
			type nat hook prerouting priority dstnat
			ip daddr 198.51.100.1 udp dport 40000-59999 dnat to 100.64.0.10
		}
	}`)
	for _, inbound := range []bool{false, true} {
		stop := flood(t, w, inbound)
		defer stop()
	}
	wide := nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 39_999}}
	by := make(map[nat.Proof]int)
	for range 30 {
		apply(t, w, wide)
		testenv.Succeeds(t, func() error {
			if n := w.SessionCount(alice); n < 500 {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
		apply(t, w, nat.Entry{Inside: alice})
		receipts, err := w.Reap(testContext(t), []netip.Addr{alice})
		if err != nil || len(receipts) != 1 || receipts[0].Deleted < 500 {
			t.Fatalf("receipts are %+v: %v", receipts, err)
		}
		by[receipts[0].Proof]++
		w.wantConntrack(t, alice, 0)
	}
	if by[nat.ProofIndex] == 0 {
		t.Errorf("proofs are %v", by)
	}
}

// TestReceiptOfSeveralCalls_DEL03: where Reap needs several calls for its proof, the receipt counts
// what all of them have deleted.
func TestReceiptOfSeveralCalls_DEL03(t *testing.T) {
	t.Run("sessions come back", func(t *testing.T) {
		w := newWireTest(t)
		apply(t, w, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 39_999}})
		stop := flood(t, w, false)
		defer stop()
		testenv.Succeeds(t, func() error {
			receipts, err := w.Reap(testContext(t), []netip.Addr{alice})
			if err == nil && len(receipts) > 0 {
				return fmt.Errorf("receipts are %+v, with an open gate", receipts)
			}
			return err
		})
		stop()
		apply(t, w, nat.Entry{Inside: alice})
		left := len(w.sessionsOf(t, alice))
		receipts, err := w.Reap(testContext(t), []netip.Addr{alice})
		if err != nil || len(receipts) != 1 || receipts[0].Deleted <= left {
			t.Errorf("receipts are %+v, %v; want more than the %d sessions of the last call", receipts, err, left)
		}
	})
	t.Run("an error", func(t *testing.T) {
		w := newWireTestWith(t, fullCone)
		apply(t, w, blockOf(alice, nat.GateOpen, 0))
		w.flow(t, alice)
		apply(t, w, nat.Entry{Inside: alice})
		commit, refused := w.commit, errors.New("refused")
		w.commit = func(context.Context, *wire.Batch) error { return refused }
		if receipts, err := w.Reap(testContext(t), []netip.Addr{alice}); !errors.Is(err, refused) || len(receipts) > 0 {
			t.Fatalf("receipts are %+v, %v", receipts, err)
		}
		w.commit = commit
		receipts, err := w.Reap(testContext(t), []netip.Addr{alice})
		if err != nil || len(receipts) != 1 || receipts[0].Deleted != 1 || receipts[0].Elements != MappingElements {
			t.Errorf("receipts are %+v, %v; want one session, and the elements of its mapping", receipts, err)
		}
	})
	t.Run("more ports than one call has time for", func(t *testing.T) {
		w := newWireTestWith(t, fullCone)
		w.known.countless = true
		var crowd []nat.Entry
		for i := range 9 {
			crowd = append(crowd, nat.Entry{Inside: netip.AddrFrom4([4]byte{100, 64, 1, byte(i)}), Gate: nat.GateOpen,
				Block: nat.Block{Outside: netip.AddrFrom4([4]byte{198, 51, 101, byte(i)}), First: 1, Last: 65535}})
		}
		apply(t, w, append(crowd, blockOf(alice, nat.GateOpen, 0))...)
		w.flow(t, alice)
		var cut []nat.Entry
		var gone []netip.Addr
		for _, e := range append(crowd, nat.Entry{Inside: alice}) {
			cut, gone = append(cut, nat.Entry{Inside: e.Inside}), append(gone, e.Inside)
		}
		apply(t, w, cut...)
		receipts, err := w.Reap(testContext(t), gone)
		if err != nil || len(receipts) == 0 || len(receipts) == len(gone) {
			t.Fatalf("%d receipts, %v; want some of %d", len(receipts), err, len(gone))
		}
		receipts, err = w.Reap(testContext(t), gone[len(receipts):])
		if n := len(receipts); err != nil || n == 0 || receipts[n-1].Inside != alice || receipts[n-1].Deleted != 1 {
			t.Errorf("receipts are %+v, %v; want one session", receipts, err)
		}
	})
}
