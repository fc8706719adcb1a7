package nftnat

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
)

// BenchmarkNewFlows measures the cost of a flow's first datagram for one subscriber with many
// flows already, in nanoseconds of processor: with the set of full subscribers, and with
// nftables' own count of entries by source in place of it, which walks the subscriber's
// entries.
func BenchmarkNewFlows(b *testing.B) {
	for name, rule := range map[string]string{
		"set": "",
		"connlimit": `add set ip sessiond counted { type ipv4_addr; flags dynamic; }
			insert rule ip sessiond translate add @counted { ip saddr ct count over 100000 } drop`,
	} {
		for _, flows := range []int{1000, 10_000, 50_000} {
			b.Run(fmt.Sprintf("%s/flows=%d", name, flows), func(b *testing.B) { benchmarkNewFlows(b, rule, flows) })
		}
	}
}

// BenchmarkNewFlowsBesidePins measures the same with the maps of pins, which first packets look
// up, and without.
func BenchmarkNewFlowsBesidePins(b *testing.B) {
	b.Run("pins=false", func(b *testing.B) { benchmarkNewFlows(b, "", 1000) })
	b.Run("pins=true", func(b *testing.B) { benchmarkNewFlows(b, "", 1000, pinned) })
}

func benchmarkNewFlows(b *testing.B, rule string, flows int, change ...func(*Options)) {
	const each = 1000
	lab := newLab(b)
	o := labOptions(lab)
	for _, f := range change {
		f(&o)
	}
	k := openForTraffic(b, o)
	apply(b, k, blockOf(alice, nat.GateOpen, 0))
	if rule != "" {
		run(b, lab, "nft", rule)
	}
	var spent, sent int64
	for b.Loop() {
		run(b, lab, "conntrack", "-F")
		sendFlows(b, lab, 1, flows)
		before := processorTime(b)
		sendFlows(b, lab, flows+1, each)
		spent += processorTime(b) - before
		sent += each
	}
	b.ReportMetric(float64(spent)/float64(sent), "ns/flow")
	b.ReportMetric(0, "ns/op")
}

// sendFlows sends one datagram to each of many ports of the internet.
func sendFlows(b *testing.B, lab *netlab.Lab, first, n int) {
	conn, err := lab.Subscriber.ListenUDP(netip.AddrPortFrom(alice, 7777))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	for i := first; i < first+n; i++ {
		to := netip.AddrPortFrom(lab.Remotes[0], uint16(1+i%60000))
		if _, err := conn.WriteToUDPAddrPort([]byte("?"), to); err != nil {
			b.Fatal(err)
		}
	}
}
