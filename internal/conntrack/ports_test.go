package conntrack_test

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// flow is a translated entry of an inside address, from one of its ports to one of a remote
// host.
func flow(inside netip.Addr, protocol uint8, port, remotePort uint16) conntrack.Entry {
	remote := netip.AddrFrom4([4]byte{203, 0, 113, 9})
	e := conntrack.Entry{
		Timeout: time.Hour, Status: conntracktest.SeenReply | conntracktest.Assured | conntracktest.Confirmed,
		Orig:  conntrack.Tuple{Src: inside, Dst: remote, SrcPort: port, DstPort: remotePort, Protocol: protocol},
		Reply: conntrack.Tuple{Src: remote, Dst: outside, SrcPort: remotePort, DstPort: port, Protocol: protocol},
	}
	if protocol == 6 {
		e.TCPState = 3 // established
	}
	return e
}

// TestPortUse: ports are counted once for all their sessions, apart for each protocol, and not
// for untranslated entries.
func TestPortUse_NAT39(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Conntrack)
	alice, bob, carol := inside(1), inside(2), inside(3)
	var entries []conntrack.Entry
	for n := range uint16(70) { // 70 sessions of 7 ports
		entries = append(entries, flow(alice, 17, 1024+n%7, 2000+n))
	}
	for n := range uint16(3) {
		entries = append(entries, flow(alice, 6, 1024+n, 443), flow(bob, 6, 65533+n, 443))
	}
	plain := flow(carol, 17, 5000, 53)
	plain.Reply.Dst, plain.Reply.DstPort = carol, 5000
	l := newLab(t)
	l.inject(t, append(entries, plain)...)
	l.waitCount(t, alice, 73)
	l.waitCount(t, bob, 3)
	l.waitCount(t, carol, 1)
	want := map[netip.Addr]nat.PortUse{alice: {TCP: 3, UDP: 7}, bob: {TCP: 3}}
	l.wantPorts(t, want)
	for n := range uint16(70) { // one session of each port is left, and of one port none
		if n >= 7 || n == 0 {
			conntracktest.In(t, l.name, "conntrack", "-D", "-p", "udp", "--dport", fmt.Sprint(2000+n))
		}
	}
	l.waitCount(t, alice, 3+6)
	want[alice] = nat.PortUse{TCP: 3, UDP: 6}
	l.wantPorts(t, want)
	if _, err := l.table.Delete(t.Context(), []netip.Addr{alice}); err != nil {
		t.Fatal(err)
	}
	delete(want, alice)
	l.wantPorts(t, want)
}

func (l *lab) wantPorts(t *testing.T, want map[netip.Addr]nat.PortUse) {
	t.Helper()
	got := map[netip.Addr]nat.PortUse{}
	l.table.PortUses(func(some []conntrack.PortUser) {
		for _, u := range some {
			got[u.Inside] = u.PortUse
		}
	})
	if !maps.Equal(got, want) {
		t.Errorf("ports in use %v, want %v", got, want)
	}
	for n := range 4 {
		if a := inside(n); l.table.PortUse(a) != want[a] {
			t.Errorf("%v uses %v, want %v", a, l.table.PortUse(a), want[a])
		}
	}
}

// BenchmarkPortUses measures a count of the ports of all subscribers.
func BenchmarkPortUses(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) {
			l := roomy(b, size)
			var spent time.Duration
			for b.Loop() {
				users := 0
				spent += cpu(b, func() { l.table.PortUses(func(some []conntrack.PortUser) { users += len(some) }) })
				if users != size/100 {
					b.Fatalf("%d users", users)
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/float64(size), "cpu-ns/entry")
			b.ReportMetric(0, "ns/op")
		})
	}
}
