package nftnat

import (
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
)

// TestPortsCannotBePredicted_NAT36: the ports of a subscriber's flows spread over its block, and
// do not follow one another (RFC 6888 REQ-15, RFC 7857 section 9). The inside ports are outside
// the block: conntrack keeps one that lies in it.
func TestPortsCannotBePredicted_NAT36(t *testing.T) {
	w := newWireTest(t)
	e := blockOf(alice, nat.GateOpen, 0)
	apply(t, w, e)
	const flows, bins = 128, 8
	size := int(e.Last-e.First) + 1
	var counts [bins]int
	var last nat.Port
	followed := 0
	for i := range flows {
		seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 20000+uint16(i)), w.echo.Addr())
		if err != nil || !inBlock(e, seen) {
			t.Fatalf("flow %d is seen from %v: %v, want %v", i, seen, err, e)
		}
		port := nat.Port(seen.Port())
		counts[int(port-e.First)*bins/size]++
		if i > 0 && (port == last+1 || port == last-1) {
			followed++
		}
		last = port
	}
	// Pearson's chi-square of 7 degrees of freedom exceeds 41 once in a million runs, and of
	// 127 pairs of ports 12 are neighbours as rarely.
	chi := 0.0
	for _, n := range counts {
		d := float64(n) - flows/bins
		chi += d * d / (flows / bins)
	}
	if chi > 41 {
		t.Errorf("chi-square is %.1f: ports in eighths of the block %v", chi, counts)
	}
	if followed > 12 {
		t.Errorf("%d of %d ports are next to the one before", followed, flows)
	}
}

// TestSameNearExhaustion_NAT14: with nearly all ports of a block in use, a flow still leaves
// from the block, and a port that another flow has is not taken from it.
func TestSameNearExhaustion_NAT14(t *testing.T) {
	w := newWireTest(t)
	e := blockOf(alice, nat.GateOpen, 0)
	e.Last = e.First + 63 // conntrack searches so small a range in full
	apply(t, w, e)
	owner := map[uint16]int{}
	for i := range int(e.Last-e.First) + 1 {
		seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 20000+uint16(i)), w.echo.Addr())
		if err != nil || !inBlock(e, seen) {
			t.Fatalf("flow %d is seen from %v: %v, want %v", i, seen, err, e)
		}
		if before, taken := owner[seen.Port()]; taken {
			t.Fatalf("flows %d and %d share port %d", before, i, seen.Port())
		}
		owner[seen.Port()] = i
	}
	for port, i := range owner { // full: each flow keeps its port
		seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 20000+uint16(i)), w.echo.Addr())
		if err != nil || seen.Port() != port {
			t.Errorf("flow %d is seen from %v: %v, before from port %d", i, seen, err, port)
		}
	}
}
