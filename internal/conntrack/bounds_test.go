package conntrack

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// boundedAt is an index of 100.64.0.0/10 with bounds, filled without a kernel.
func boundedAt(t *testing.T, list ...Bounds) *Table {
	t.Helper()
	inside, err := rangesOf([]netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")})
	if err != nil {
		t.Fatal(err)
	}
	table := &Table{index: newIndex(inside)}
	wake := make(chan struct{}, 1)
	table.index.opened, table.index.reached, table.index.bounded = newCrowds(0, wake), newCrowds(0, wake), newBounded(wake)
	if err := table.SetBounds(list); err != nil {
		t.Fatal(err)
	}
	return table
}

// begun is an entry that an address began.
func begun(from netip.Addr, protocol, port, remotePort uint16) flow {
	f := flow{orig: key{src: addrrange.Number(from), dst: 0xcb00710a, sport: port, dport: remotePort, proto: protocol}, id: 1}
	f.reply = key{src: f.orig.dst, dst: 0xc6336401, sport: remotePort, dport: 2000, proto: protocol}
	return f
}

// TestBoundsOfPrefixes: each address has the bounds of its prefix; one that begins no entry, or
// has no bound, is never listed.
func TestBoundsOfPrefixes_NAT28(t *testing.T) {
	few, many, none := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.65.0.1"), netip.MustParseAddr("100.66.0.1")
	table := boundedAt(t,
		Bounds{Prefixes: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, Entries: 8},
		Bounds{Prefixes: []netip.Prefix{netip.MustParsePrefix("100.65.0.0/16")}, Entries: 16, Scarce: 8},
	)
	want := func(near, entries []netip.Addr) {
		t.Helper()
		if got := table.AtBounds(); !slices.Equal(got.Near, near) || !slices.Equal(got.Entries, entries) {
			t.Errorf("near are %v and at the bound %v, want %v and %v", got.Near, got.Entries, near, entries)
		}
	}
	x := table.index
	begin := func(from netip.Addr, n int) {
		f := begun(from, unix.IPPROTO_UDP, 5000, uint16(n))
		x.createdLocked(&f)
	}
	for n := range 7 {
		begin(few, n)
		begin(many, n)
		begin(none, n)
	}
	want([]netip.Addr{few}, nil)
	for n := 7; n < 12; n++ {
		begin(few, n)
		begin(many, n)
		begin(none, n)
	}
	want([]netip.Addr{few, many}, []netip.Addr{few})
	table.SetScarce(true)
	want([]netip.Addr{few, many}, []netip.Addr{few, many})
	table.SetScarce(false)
	want([]netip.Addr{few, many}, []netip.Addr{few})
	for n := 7; n < 12; n++ {
		f := begun(few, unix.IPPROTO_UDP, 5000, uint16(n))
		x.destroyedLocked(&f)
		if n < 11 {
			want([]netip.Addr{few, many}, []netip.Addr{few}) // 8, the bound, and more
		}
	}
	want([]netip.Addr{few, many}, []netip.Addr{few}) // an eighth below is 7
	for n := range 3 {
		f := begun(few, unix.IPPROTO_UDP, 5000, uint16(n))
		x.destroyedLocked(&f)
	}
	want([]netip.Addr{many}, nil)
	if err := table.SetBounds(nil); err != nil {
		t.Fatal(err)
	}
	want(nil, nil)
	if err := table.SetBounds([]Bounds{{Prefixes: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}, Entries: 1}}); err != nil {
		t.Fatal(err)
	}
	want([]netip.Addr{few, many, none}, []netip.Addr{few, many, none}) // known at once
}

// TestMappingsWhileScarce_NAT28_I10: while room is scarce, an address has a small part of the
// entries that others may begin to it otherwise. What it begins itself is bounded as before.
func TestMappingsWhileScarce_NAT28_I10(t *testing.T) {
	const bound = 4 * reachedShare
	alice, bob := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	table := boundedAt(t)
	x := table.index
	x.opened.bound, x.reached.bound = bound, bound
	reach := func(n int) flow {
		f := flow{orig: key{src: 0xcb00710a, dst: 0xc6336401, sport: uint16(n), dport: 2000, proto: unix.IPPROTO_UDP}, id: 1}
		f.reply = key{src: addrrange.Number(alice), dst: f.orig.src, sport: 5000, dport: f.orig.sport, proto: unix.IPPROTO_UDP}
		return f
	}
	want := func(began, reached []netip.Addr) {
		t.Helper()
		if a, b := table.Crowded(); !slices.Equal(a, began) || !slices.Equal(b, reached) {
			t.Errorf("by what they began %v are at the bound, by what others did %v; want %v and %v", a, b, began, reached)
		}
	}
	for n := range 5 {
		f := reach(n)
		x.createdLocked(&f)
	}
	for n := range bound {
		f := begun(bob, unix.IPPROTO_UDP, 5000, uint16(n))
		x.createdLocked(&f)
	}
	want(nil, nil)
	table.SetScarce(true)
	want(nil, []netip.Addr{alice})
	for n := range 3 {
		f := reach(n)
		x.destroyedLocked(&f)
	}
	want(nil, nil)
	for n := range 5 {
		f := reach(n)
		x.createdLocked(&f)
	}
	want(nil, []netip.Addr{alice})
	table.SetScarce(false)
	want(nil, nil)
}

// TestPortsAreCounted compares the count of ports with a simple model, while entries begin and
// end at random and the bounds change.
func TestPortsAreCounted_NAT28(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	all := []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}
	table := boundedAt(t, Bounds{Prefixes: all, TCPPorts: 6, UDPPorts: 10})
	x := table.index
	type entry struct{ user, protocol, port, remote uint16 }
	standing := map[entry]bool{}
	full := map[netip.Addr]bool{} // at the bound of UDP
	address := func(user uint16) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, byte(user)}) }
	bound := 10
	for step := range 20_000 {
		e := entry{uint16(r.IntN(3)), []uint16{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP}[r.IntN(3)], uint16(r.IntN(14)), uint16(r.IntN(3))}
		f := begun(address(e.user), e.protocol, e.port, e.remote)
		if standing[e] {
			x.destroyedLocked(&f)
			delete(standing, e)
		} else if r.IntN(3) > 0 || step%2000 < 1000 {
			x.createdLocked(&f)
			standing[e] = true
		}
		if step%5000 == 4999 {
			bound = 4 + r.IntN(8)
			if err := table.SetBounds([]Bounds{{Prefixes: all, TCPPorts: 6, UDPPorts: bound}}); err != nil {
				t.Fatal(err)
			}
		}
		var want []netip.Addr
		for user := range uint16(3) {
			ports := map[uint16]bool{}
			for e := range standing {
				if e.user == user && e.protocol == unix.IPPROTO_UDP {
					ports[e.port] = true
				}
			}
			if got := table.Ports(address(user), unix.IPPROTO_UDP); len(got) != len(ports) {
				t.Fatalf("step %d: %d ports, want %d", step, len(got), len(ports))
			}
			switch a := address(user); {
			case len(ports) >= bound:
				full[a] = true
			case len(ports) < bound-bound/8:
				full[a] = false
			}
			if full[address(user)] {
				want = append(want, address(user))
			}
		}
		if got := table.AtBounds().UDPPorts; !slices.Equal(got, want) {
			t.Fatalf("step %d: at the bound are %v, want %v", step, got, want)
		}
	}
	for e := range standing {
		f := begun(address(e.user), e.protocol, e.port, e.remote)
		x.destroyedLocked(&f)
	}
	if got := table.AtBounds(); len(got.UDPPorts)+len(got.TCPPorts) > 0 || len(x.bounded.used) > 0 {
		t.Errorf("without entries %+v are listed, and %d counted", got, len(x.bounded.used))
	}
}
