package nftnat

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
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
