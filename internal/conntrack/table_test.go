package conntrack_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

var (
	insideNet = netip.MustParsePrefix("100.64.0.0/10")
	outside   = netip.MustParseAddr("198.51.100.1")
	remote    = netip.MustParseAddr("203.0.113.1")
)

// lab is a namespace of its own with a running table.
type lab struct {
	name, path string
	table      *conntrack.Table
}

// newLab makes a lab with entries from before the table runs. They end without an event,
// unless another listener exists on the machine.
func newLab(t testing.TB, prepare ...conntrack.Entry) *lab {
	t.Helper()
	return newLabWith(t, conntrack.Options{}, prepare...)
}

func newLabWith(t testing.TB, o conntrack.Options, prepare ...conntrack.Entry) *lab {
	t.Helper()
	testenv.Require(t, testenv.Root|testenv.Conntrack)
	l := &lab{}
	l.name, l.path = conntracktest.Namespace(t)
	conntracktest.In(t, l.name, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
	conntracktest.Inject(t, l.path, prepare)
	conntracktest.In(t, l.name, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
	o.NetNS, o.Inside = l.name, []netip.Prefix{insideNet}
	l.table = start(t, o)
	return l
}

// start opens and runs a table until the test ends.
func start(t testing.TB, o conntrack.Options) *conntrack.Table {
	t.Helper()
	table, err := conntrack.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- table.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := table.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	select {
	case <-table.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the index was not built")
	}
	return table
}

func (l *lab) inject(t testing.TB, entries ...conntrack.Entry) {
	t.Helper()
	conntracktest.Inject(t, l.path, entries)
}

// keepComing makes new entries of one address all the time, until stop.
func (l *lab) keepComing(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for port := uint16(1); ctx.Err() == nil && port < 60000; port++ {
			l.inject(t, conntracktest.Outbound(at(inside(1), port), at(outside, port), at(remote, port)))
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// listed returns the number of entries with addr in the output of conntrack(8).
func (l *lab) listed(t testing.TB, addr netip.Addr) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(conntracktest.In(t, l.name, "conntrack", "-L")) {
		if slices.ContainsFunc(strings.Fields(line), func(f string) bool {
			return f == "src="+addr.String() || f == "dst="+addr.String()
		}) {
			n++
		}
	}
	return n
}

// waitCount waits until the index counts n entries of addr.
func (l *lab) waitCount(t testing.TB, addr netip.Addr, n int) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		if got := l.table.Count(addr); got != n {
			return fmt.Errorf("Count(%v) = %d, want %d", addr, got, n)
		}
		return nil
	})
}

func inside(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)})
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func mixed() (a, b netip.Addr, entries []conntrack.Entry) {
	a, b = inside(1), inside(2)
	return a, b, []conntrack.Entry{
		conntracktest.Outbound(at(a, 1000), at(outside, 2000), at(remote, 53)),
		conntracktest.Inbound(at(a, 1001), at(outside, 2001), at(remote, 5000)),
		conntracktest.Hairpin(at(a, 1002), at(outside, 2002), at(b, 3000), at(outside, 4000)),
		conntracktest.Hairpin(at(b, 3001), at(outside, 4001), at(a, 1003), at(outside, 2003)),
		conntracktest.Outbound(at(b, 3002), at(outside, 4002), at(remote, 53)),
		conntracktest.Outbound(at(netip.MustParseAddr("192.0.2.1"), 1), at(outside, 4003), at(remote, 53)),
	}
}

func TestIndexBuiltFromWhatStandsAndFromEvents(t *testing.T) {
	a, b, entries := mixed()
	for name, before := range map[string]int{"dump": len(entries), "events": 0, "both": 3} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, entries[:before]...)
			l.inject(t, entries[before:]...)
			l.waitCount(t, a, 4)
			l.waitCount(t, b, 3)
			if got := l.table.Total(); got != 5 {
				t.Errorf("Total = %d, want 5: the foreign entry does not count", got)
			}
			conntracktest.In(t, l.name, "conntrack", "-F")
			if before > 0 {
				l.table.Rebuild() // entries older than the listener end without an event
			}
			l.waitCount(t, a, 0)
			l.waitCount(t, b, 0)
		})
	}
}

func TestDeleteBothTuples_DEL01_DEL02_DEL07(t *testing.T) {
	a, b, entries := mixed()
	l := newLab(t, entries...)
	got, err := l.table.Delete(t.Context(), []netip.Addr{a})
	if err != nil || got[a].Deleted != 4 {
		t.Fatalf("Delete = %v, %v; want 4 deleted", got, err)
	}
	if n := l.listed(t, a); n != 0 {
		t.Errorf("conntrack shows %d entries of the deleted address", n)
	}
	if n := l.listed(t, b); n != 1 {
		t.Errorf("conntrack shows %d entries of the neighbour, want its own one", n)
	}
	if n := l.listed(t, netip.MustParseAddr("192.0.2.1")); n != 1 {
		t.Errorf("the foreign entry is gone")
	}
	if l.table.Count(a) != 0 || l.table.Count(b) != 1 {
		t.Errorf("Count = %d and %d, want 0 and 1", l.table.Count(a), l.table.Count(b))
	}
}

func TestDeleteOfTwoHairpinPeersCountsForBoth(t *testing.T) {
	a, b, entries := mixed()
	l := newLab(t, entries...)
	got, err := l.table.Delete(t.Context(), []netip.Addr{a, b, inside(9)})
	if err != nil || got[a].Deleted != 4 || got[b].Deleted != 3 || got[inside(9)].Deleted != 0 || len(got) != 3 {
		t.Fatalf("Delete = %v, %v", got, err)
	}
	if n := strings.Count(conntracktest.In(t, l.name, "conntrack", "-L"), "\n"); n != 1 {
		t.Errorf("%d entries are left, want the foreign one", n)
	}
}

// NAT never puts the address there: as a destination, and without a reply source.
func TestDeleteFindsEverySide(t *testing.T) {
	a := inside(1)
	odd := conntracktest.Outbound(at(remote, 1), at(outside, 2), at(a, 3))
	odd.Reply.Src = netip.MustParseAddr("192.0.2.7")
	odder := conntracktest.Outbound(at(remote, 4), at(a, 5), at(outside, 6))
	l := newLab(t, odd, odder)
	l.waitCount(t, a, 2)
	got, err := l.table.Prove(t.Context(), []netip.Addr{a})
	if err != nil || got[a].Deleted != 2 || got[a].Proof != nat.ProofTable {
		t.Fatalf("Prove = %v, %v", got, err)
	}
}

func TestDeleteWithoutIndex(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Conntrack)
	name, path := conntracktest.Namespace(t)
	table, err := conntrack.Open(conntrack.Options{NetNS: path})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	a, b, entries := mixed()
	conntracktest.Inject(t, path, entries)
	for _, addrs := range [][]netip.Addr{{a}, {a, b}} {
		if _, err := table.Delete(t.Context(), addrs); err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			if n := (&lab{name: name}).listed(t, addr); n != 0 {
				t.Errorf("%d entries of %v are left", n, addr)
			}
		}
	}
}

func TestProtocolsAndZones(t *testing.T) {
	a := inside(1)
	var entries []conntrack.Entry
	for i, proto := range []uint8{1, 6, 17, 33, 47, 132, 136, 50} {
		for zone := range uint16(2) {
			e := conntracktest.Outbound(at(a, uint16(100+i)), at(outside, uint16(100+i)), at(remote, 7))
			e.Orig.Protocol, e.Reply.Protocol, e.Zone, e.TCPState = proto, proto, zone*9, 3
			switch proto {
			case 1:
				e.Orig.DstPort, e.Reply.SrcPort, e.Reply.DstPort = 8<<8, e.Reply.DstPort, 0
			case 50:
				e.Orig.SrcPort, e.Orig.DstPort, e.Reply.SrcPort, e.Reply.DstPort = 0, 0, 0, 0
			}
			if zone == 0 || proto == 6 || proto == 1 {
				entries = append(entries, e)
			}
		}
	}
	l := newLab(t)
	l.inject(t, entries...)
	made := len(entries)
	l.waitCount(t, a, made)
	seen := dump(t, l.table)
	for _, e := range seen {
		if e.Orig.Protocol == 6 && e.TCPState != 3 {
			t.Errorf("TCP state %d, want 3 (established)", e.TCPState)
		}
		if e.ID == 0 || e.Timeout < 3590*time.Second || e.Timeout > 3600*time.Second {
			t.Errorf("id %d, timeout %v", e.ID, e.Timeout)
		}
	}
	got, err := l.table.Flush(t.Context(), []netip.Addr{a})
	if err != nil || got[a] != made || l.listed(t, a) != 0 {
		t.Fatalf("Flush = %v, %v; %d left", got, err, l.listed(t, a))
	}
}

func dump(t testing.TB, table *conntrack.Table) []conntrack.Entry {
	t.Helper()
	var entries []conntrack.Entry
	if err := table.Dump(t.Context(), func(e conntrack.Entry) error {
		entries = append(entries, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return entries
}
