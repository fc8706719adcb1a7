package nftnat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
)

// BenchmarkGroupTimeouts measures the cost of a flow's first datagram, and of a later one, in
// nanoseconds of processor, beside groups with timeouts of their own for 64 ports each: a lab of
// one CGN for each number of groups, all measured in turns.
func BenchmarkGroupTimeouts(b *testing.B) {
	const each = 5000
	counts := []int{0, 1, 64}
	labs := make([]*netlab.Lab, len(counts))
	spent := make([][2]int64, len(counts)) // on first datagrams, on later ones
	for i, groups := range counts {
		labs[i] = newLab(b)
		o := labOptions(labs[i])
		o.GroupTimeouts = manyGroups(groups)
		apply(b, openForTraffic(b, o), blockOf(alice, nat.GateOpen, 0))
	}
	turns := int64(0)
	for b.Loop() {
		for i, lab := range labs {
			run(b, lab, "conntrack", "-F")
			for later := range 2 {
				before := processorTime(b)
				sendFlows(b, lab, 1, each)
				spent[i][later] += processorTime(b) - before
			}
		}
		turns++
	}
	for i, groups := range counts {
		b.ReportMetric(float64(spent[i][0])/float64(each*turns), fmt.Sprintf("ns/new-%d-groups", groups))
		b.ReportMetric(float64(spent[i][1])/float64(each*turns), fmt.Sprintf("ns/later-%d-groups", groups))
	}
	b.ReportMetric(0, "ns/op")
}

// manyGroups are groups of one prefix each, of which the last has alice.
func manyGroups(n int) []nat.GroupTimeouts {
	groups := make([]nat.GroupTimeouts, n)
	for i := range groups {
		g := nat.GroupTimeouts{
			Inside: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64 + byte(n-1-i), 0, 0}), 16)},
			Own:    nat.Timeouts{UDP: time.Duration(600+i) * time.Second},
		}
		for port := range 64 {
			g.Ports = append(g.Ports, nat.PortTimeout{Protocol: unix.IPPROTO_UDP, Port: uint16(60001 + port), Timeout: 10 * time.Second})
		}
		groups[i] = g
	}
	return groups
}
