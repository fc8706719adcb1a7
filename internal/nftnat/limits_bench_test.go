package nftnat

import (
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
)

// BenchmarkLimits compares the cost of a datagram with limits and without, in nanoseconds of
// processor: of an established flow, which no rule of limits sees, and of the first one of a flow.
// Both take turns in one run. The ratio is of the packets that a processor forwards in a second.
func BenchmarkLimits(b *testing.B) {
	limits := []nat.PrefixLimits{{
		Inside: []netip.Prefix{limitedPrefix},
		Limits: nat.Limits{Sessions: 1 << 20, NewSessionsPerSecond: 5_000_000, TCPPorts: 60_000, UDPPorts: 60_000, Reserve: 1 << 19},
	}}
	b.Run("established", func(b *testing.B) {
		const datagrams = 20_000
		lab := newLab(b)
		k := startKernel(b, labOptions(lab))
		apply(b, k, blockOf(alice, nat.GateOpen, 0))
		conn, err := lab.Subscriber.Dial(testContext(b), "udp4", netip.AddrPortFrom(alice, 5000), netip.AddrPortFrom(lab.Remotes[0], 9))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		compareLimits(b, k, limits, datagrams, func() {
			for range datagrams {
				_, _ = conn.Write([]byte("?")) // the host outside may refuse it
			}
		})
	})
	b.Run("first", func(b *testing.B) {
		const flows = 10_000
		lab := newLab(b)
		k := startKernel(b, labOptions(lab))
		apply(b, k, blockOf(alice, nat.GateOpen, 0))
		compareLimits(b, k, limits, flows, func() {
			run(b, lab, "conntrack", "-F")
			sendFlows(b, lab, 1, flows)
		})
	})
}

func compareLimits(b *testing.B, k *Kernel, limits []nat.PrefixLimits, packets int, burst func()) {
	b.Helper()
	spent := func(list []nat.PrefixLimits) int64 {
		if err := k.SetLimits(b.Context(), list); err != nil {
			b.Fatal(err)
		}
		burst()
		before := processorTime(b)
		burst()
		return processorTime(b) - before
	}
	var with, without int64
	for b.Loop() {
		with += spent(limits)
		without += spent(nil)
	}
	sent := float64(b.N * packets)
	b.ReportMetric(float64(with)/sent, "ns/with")
	b.ReportMetric(float64(without)/sent, "ns/without")
	b.ReportMetric(float64(without)/float64(with), "x")
	b.ReportMetric(0, "ns/op")
}
