package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// TestRemotes: addresses are found by the hosts that they talk to, whoever began, also where nothing
// is translated; not by a neighbour who reached them over its own outside address.
func TestRemotes(t *testing.T) {
	table := &Table{index: newIndex(testSpans(t))}
	const alice, bob, carol, dave = firstInside + 1, firstInside + 2, firstInside + 3, firstInside + 4
	const outer, host, other = 198<<24 + 7, 203<<24 + 5, 203<<24 + 6
	id := uint32(0)
	add := func(orig, reply key) {
		id++
		table.index.createdLocked(&flow{orig: orig, reply: reply, id: id})
	}
	tuple := func(src uint32, sport uint16, dst uint32, dport, proto uint16) key {
		return key{src: src, sport: sport, dst: dst, dport: dport, proto: proto}
	}
	add(tuple(alice, 1000, host, 443, unix.IPPROTO_TCP), tuple(host, 443, outer, 2000, unix.IPPROTO_TCP))
	add(tuple(alice, 7, other, 0x800, unix.IPPROTO_ICMP), tuple(other, 7, outer, 0, unix.IPPROTO_ICMP))
	add(tuple(other, 53, outer, 2001, unix.IPPROTO_UDP), tuple(bob, 1001, other, 53, unix.IPPROTO_UDP))       // through a mapping
	add(tuple(carol, 1002, outer, 2001, unix.IPPROTO_UDP), tuple(bob, 1001, outer+1, 2002, unix.IPPROTO_UDP)) // from inside to inside
	add(tuple(dave, 1003, host, 443, unix.IPPROTO_TCP), tuple(host, 443, dave, 1003, unix.IPPROTO_TCP))       // without NAT
	add(tuple(host, 444, dave, 1004, unix.IPPROTO_TCP), tuple(dave, 1004, host, 444, unix.IPPROTO_TCP))
	all := []uint32{alice, bob, carol, dave}
	for _, c := range []struct {
		prefix string
		port   uint16
		want   []uint32
	}{
		{"203.0.0.5/32", 0, []uint32{alice, dave}},
		{"203.0.0.5/32", 443, []uint32{alice, dave}},
		{"203.0.0.5/32", 444, []uint32{dave}},
		{"203.0.0.6/32", 0, []uint32{alice, bob}},
		{"203.0.0.6/32", 0x800, nil}, // ICMP has no ports
		{"203.0.0.6/32", 53, []uint32{bob}},
		{"203.0.0.4/30", 0, []uint32{alice, bob, dave}},
		{"203.0.0.7/30", 0, []uint32{alice, bob, dave}}, // not masked
		{"198.0.0.7/32", 0, []uint32{carol}},
		{"198.0.0.8/32", 0, nil}, // carol's own outside address
		{"100.64.0.0/10", 0, nil},
		{"0.0.0.0/0", 0, all},
		{"", 0, all},
		{"", 443, []uint32{alice, dave}},
		{"", 1002, nil},
		{"::/0", 0, nil},
	} {
		r := Remote{Port: c.port}
		if c.prefix != "" {
			r.Prefix = netip.MustParsePrefix(c.prefix)
		}
		var want []netip.Addr
		for _, addr := range all {
			a := addrrange.Address(addr)
			talks := slices.Contains(c.want, addr)
			if talks {
				want = append(want, a)
			}
			if table.Talks(a, r) != talks {
				t.Errorf("%+v: %v talks: %t", r, a, !talks)
			}
		}
		got, few := table.Talking(r, len(want))
		if slices.SortFunc(got, netip.Addr.Compare); !few || !slices.Equal(got, want) {
			t.Errorf("%+v: %v, %t, want %v", r, got, few, want)
		}
		if len(want) > 0 {
			if got, few := table.Talking(r, len(want)-1); few || got != nil {
				t.Errorf("%+v: %v are few, of %d", r, got, len(want))
			}
		}
	}
	for _, a := range []string{"100.64.9.9", "::1"} {
		if table.Talks(netip.MustParseAddr(a), Remote{}) {
			t.Errorf("%s talks", a)
		}
	}
	for i := range uint32(3 * countStep) {
		add(tuple(firstInside+100+i, 1, host, 80, unix.IPPROTO_TCP), tuple(host, 80, outer, uint16(i), unix.IPPROTO_TCP))
	}
	if got, few := table.Talking(Remote{Port: 80}, 3*countStep); len(got) != 3*countStep || !few {
		t.Errorf("%d addresses, %t, want %d", len(got), few, 3*countStep)
	}
}

// BenchmarkTalking measures a look at all entries, of which none is selected.
func BenchmarkTalking(b *testing.B) {
	for _, n := range []uint32{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := &Table{index: newIndex(testSpans(b))}
			for i := range n {
				outer := uint32(198<<24 + 7)
				addr, port := firstInside+i/4, uint16(i%4)
				f := flow{orig: key{src: addr, dst: outer, sport: port, proto: 17}, reply: key{src: outer, dst: outer + 1, dport: port, proto: 17}}
				table.index.createdLocked(&f)
			}
			remote := Remote{Prefix: netip.MustParsePrefix("203.0.113.5/32")}
			for b.Loop() {
				if list, few := table.Talking(remote, 1); len(list) > 0 || !few {
					b.Fatal(list, few)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
}
