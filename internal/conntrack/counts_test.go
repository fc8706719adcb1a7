package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// TestCounts: entries are counted by protocol, and those that an address began, also after they
// ended; a walk yields every address with entries.
func TestCounts(t *testing.T) {
	table := &Table{index: newIndex(testSpans(t))}
	x := table.index
	add := func(addr uint32, proto uint16, port uint16, inbound bool) {
		outer := uint32(198<<24 + 7)
		f := flow{
			orig:  key{src: addr, dst: outer, sport: port, dport: 53, proto: proto},
			reply: key{src: outer, dst: outer + 1, sport: 53, dport: port, proto: proto}, id: uint32(port),
		}
		if inbound { // through a mapping
			f.orig, f.reply = key{src: outer, dst: outer + 1, sport: 53, dport: port, proto: proto}, key{src: addr, dst: outer, sport: port, dport: 53, proto: proto}
		}
		x.createdLocked(&f)
	}
	const alice, bob = firstInside + 1, firstInside + 2
	add(alice, unix.IPPROTO_TCP, 1, false)
	add(alice, unix.IPPROTO_TCP, 2, false)
	add(alice, unix.IPPROTO_UDP, 3, false)
	add(alice, unix.IPPROTO_ICMP, 4, false)
	add(alice, unix.IPPROTO_GRE, 5, false)
	add(alice, unix.IPPROTO_UDP, 6, true)
	add(bob, unix.IPPROTO_UDP, 7, false)
	plain := key{src: alice, dst: 198<<24 + 9, sport: 8, dport: 53, proto: unix.IPPROTO_UDP} // to the machine itself
	x.createdLocked(&flow{orig: plain, reply: key{src: plain.dst, dst: plain.src, sport: plain.dport, dport: plain.sport, proto: plain.proto}, id: 8})
	want := nat.SessionCounts{TCP: 2, UDP: 2, ICMP: 1, Other: 2, Began: 6}
	if got := table.Counts(addrrange.Address(alice)); got != want || got.Total() != 7 {
		t.Errorf("alice has %+v, want %+v", got, want)
	}
	if got := table.Counts(netip.MustParseAddr("100.64.9.9")); got != (nat.SessionCounts{}) {
		t.Errorf("nobody has %+v", got)
	}
	if got := table.Counts(netip.MustParseAddr("::1")); got != (nat.SessionCounts{}) {
		t.Errorf("IPv6 has %+v", got)
	}
	x.removeLocked(x.lookup.find(key{src: alice, dst: 198<<24 + 7, sport: 1, dport: 53, proto: unix.IPPROTO_TCP}, &x.records))
	found := map[netip.Addr]AddressCount{}
	table.AddressCounts(func(some []AddressCount) {
		for _, c := range some {
			found[c.Inside] = c
		}
	})
	a, b := addrrange.Address(alice), addrrange.Address(bob)
	if len(found) != 2 || found[a] != (AddressCount{a, 6, 6}) || found[b] != (AddressCount{b, 1, 1}) {
		t.Errorf("found %+v", found)
	}
	for addr := range uint32(3 * countStep) {
		add(firstInside+100+addr, unix.IPPROTO_UDP, 9, false)
	}
	seen := 0
	table.AddressCounts(func(some []AddressCount) { seen += len(some) })
	if seen != 2+3*countStep {
		t.Errorf("%d addresses are seen, want %d", seen, 2+3*countStep)
	}
}

// BenchmarkAddressCounts measures a walk over all addresses, each with four entries.
func BenchmarkAddressCounts(b *testing.B) {
	for _, n := range []uint32{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := &Table{index: newIndex(testSpans(b))}
			for addr := range n {
				for port := range uint16(4) {
					outer := uint32(198<<24 + 7)
					f := flow{orig: key{src: firstInside + addr, dst: outer, sport: port, proto: 17}, reply: key{src: outer, dst: outer + 1, dport: port, proto: 17}}
					table.index.createdLocked(&f)
				}
			}
			for b.Loop() {
				seen := 0
				table.AddressCounts(func(some []AddressCount) { seen += len(some) })
				if seen != int(n) {
					b.Fatal(seen)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/address")
		})
	}
}
