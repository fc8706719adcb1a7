package nftnat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
	"golang.org/x/sys/unix"
)

// noNATTest is a CGN with sessions without NAT: all to the second remote host, and UDP to ports
// 7001 and 7002 of the first.
type noNATTest struct {
	wireTest
	second, limited *netlab.Echo
}

func newNoNATTest(t *testing.T, start func(testing.TB, Options) *Kernel) noNATTest {
	t.Helper()
	w := noNATTest{wireTest: neighbourhood(t)}
	var err, err2 error
	w.second, err = w.StartEcho(netip.AddrPortFrom(w.Remotes[1], 7000))
	w.limited, err2 = w.StartEcho(netip.AddrPortFrom(w.Remotes[0], 7001))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	o := labOptions(w.Lab)
	o.NoNAT = w.list()
	w.Kernel = start(t, o)
	return w
}

func (w noNATTest) list() []nat.NoNAT {
	inside := []netip.Prefix{netip.MustParsePrefix("100.64.0.0/11"), netip.MustParsePrefix("100.96.0.0/11")}
	return []nat.NoNAT{
		{Inside: inside, Remote: netip.PrefixFrom(w.Remotes[1], 32), Last: 65535},
		{Inside: inside, Remote: netip.MustParsePrefix("203.0.113.0/28"), Protocol: unix.IPPROTO_UDP, First: 7001, Last: 7002},
	}
}

// left returns the packets with an inside source that left, but for those of settling.
func (w noNATTest) left(t *testing.T) []netlab.Packet {
	t.Helper()
	if err := w.capture.Settle(testContext(t), w.CGN, w.Remotes[0]); err != nil {
		t.Fatal(err)
	}
	return w.capture.Matching(func(p netlab.Packet) bool {
		return p.Outgoing && netlab.InsideGateway.Masked().Contains(p.Source.Addr())
	})
}

// TestNoNAT_NAT29_I3: sessions to listed destinations pass untranslated, both ways; all others
// are translated. They need an open gate, are counted, and a removal takes them. Hosts there
// begin no sessions.
func TestNoNAT_NAT29_I3(t *testing.T) {
	w := newNoNATTest(t, startKernel)
	e := blockOf(alice, nat.GateOpen, 0)
	if err := w.Subscriber.Send(netlab.Packet{Protocol: netlab.UDP, Source: netip.AddrPortFrom(alice, 5000), Destination: w.second.Addr()}); err != nil {
		t.Fatal(err)
	}
	w.dropped(t, chainUpstream, "no open gate")
	if left := w.left(t); len(left) > 0 {
		t.Errorf("without a gate a packet left: %+v", left[0])
	}

	apply(t, w, e)
	for i, tt := range []struct {
		name  string
		ask   func(context.Context, netip.AddrPort, netip.AddrPort) (netip.AddrPort, error)
		to    netip.AddrPort
		plain bool
	}{
		{"udp to the host", w.Subscriber.AskUDP, w.second.Addr(), true},
		{"tcp to the host", w.Subscriber.AskTCP, w.second.Addr(), true},
		{"udp to the port", w.Subscriber.AskUDP, w.limited.Addr(), true},
		{"tcp to the port", w.Subscriber.AskTCP, w.limited.Addr(), false},
		{"udp to another port", w.Subscriber.AskUDP, w.echo.Addr(), false},
	} {
		from := netip.AddrPortFrom(alice, 5010+uint16(i))
		seen, err := tt.ask(testContext(t), from, tt.to)
		if err != nil || tt.plain != (seen == from) || !tt.plain && !inBlock(e, seen) {
			t.Errorf("%s: %v is seen from %v: %v", tt.name, from, seen, err)
		}
	}
	wantSessions(t, w, alice, 5)

	t.Run("ICMP error of a session of another protocol", func(t *testing.T) {
		// The subscriber has no socket at the port, so its host answers the echo with an error.
		from := netip.AddrPortFrom(alice, 5002)
		if err := w.Subscriber.Send(netlab.Packet{Protocol: netlab.UDP, Source: from, Destination: w.limited.Addr(), Payload: []byte("?")}); err != nil {
			t.Fatal(err)
		}
		_, err := w.capture.Await(testContext(t), func(p netlab.Packet) bool {
			return p.Outgoing && p.Protocol == netlab.ICMP && p.Source.Addr() == alice && p.Quoted != nil && p.Quoted.Destination == from
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("begun from there", func(t *testing.T) {
		before := dropsOf(t, w)
		if err := w.Internet.Send(netlab.Packet{Protocol: netlab.UDP, Source: netip.AddrPortFrom(w.Remotes[1], 7777), Destination: netip.AddrPortFrom(alice, 5003)}); err != nil {
			t.Fatal(err)
		}
		testenv.Succeeds(t, func() error {
			for i, c := range dropsOf(t, w) {
				if c.Reason == nat.DropFiltered && c.Packets == before[i].Packets+1 {
					return nil
				}
			}
			return errors.New("it is not counted as filtered")
		})
	})
	t.Run("listed", func(t *testing.T) {
		listing := run(t, w.Lab, "nft", "list", "table", "ip", testTable)
		if !strings.Contains(listing, w.Remotes[1].String()) || !strings.Contains(listing, `comment "no NAT"`) {
			t.Errorf("nft list table lacks the destinations:\n%s", listing)
		}
		if out := run(t, w.Lab, "nft", "-j", "list", "ruleset"); !json.Valid([]byte(out)) {
			t.Errorf("nft -j list ruleset prints no JSON: %s", out)
		}
	})
	t.Run("not swept", func(t *testing.T) { // with the flows from before the table
		if n, _, err := w.sweepUntranslated(testContext(t)); n != 0 || err != nil {
			t.Errorf("%d sessions were swept: %v", n, err)
		}
	})
	t.Run("removed", func(t *testing.T) {
		apply(t, w, nat.Entry{Inside: alice})
		wantReaped(t, w, alice, 6)
		w.wantConntrack(t, alice, 0)
		w.capture.Clear()
		for _, to := range []netip.AddrPort{w.second.Addr(), w.limited.Addr()} {
			if err := w.Subscriber.Send(netlab.Packet{Protocol: netlab.UDP, Source: netip.AddrPortFrom(alice, 5001), Destination: to}); err != nil {
				t.Fatal(err)
			}
		}
		if left := w.left(t); len(left) > 0 {
			t.Errorf("after the removal a packet left: %+v", left[0])
		}
	})
}

// TestNoNATStopsWithTheTable_NAT29_I3: while the table is away the barrier keeps back sessions
// without NAT, too, those that stood included, also at destinations that it lets marked
// packets pass to. They go on with the table.
func TestNoNATStopsWithTheTable_NAT29_I3(t *testing.T) {
	w := newNoNATTest(t, func(t testing.TB, o Options) *Kernel { return openKernel(t, o) }) // a running one would make the table anew
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	from := netip.AddrPortFrom(alice, 5001)
	if seen, err := w.Subscriber.AskUDP(testContext(t), from, w.second.Addr()); err != nil || seen != from {
		t.Fatalf("%v is seen from %v: %v", from, seen, err)
	}
	run(t, w.Lab, "nft", "delete", "table", "ip", testTable)
	w.capture.Clear()
	for _, source := range []netip.AddrPort{from, netip.AddrPortFrom(bob, 5001)} {
		if err := w.Subscriber.Send(netlab.Packet{Protocol: netlab.UDP, Source: source, Destination: w.second.Addr()}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Succeeds(t, func() error {
		if c := dropsOf(t, w); c[len(c)-1].Packets != 2 {
			return fmt.Errorf("the barrier kept back %d packets, want 2", c[len(c)-1].Packets)
		}
		return nil
	})
	if left := w.left(t); len(left) > 0 {
		t.Errorf("a packet left without the table: %+v", left[0])
	}
	if _, err := w.converge(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if seen, err := w.Subscriber.AskUDP(testContext(t), from, w.second.Addr()); err != nil || seen != from {
		t.Errorf("with the table %v is seen from %v: %v", from, seen, err)
	}
}

// TestNoNATChanges_NAT29_I7: a restart keeps live sessions without NAT. One whose destination
// is taken out of the list stops, and begins anew translated. The table of an empty
// list is as that of none.
func TestNoNATChanges_NAT29_I7(t *testing.T) {
	w := newNoNATTest(t, func(t testing.TB, o Options) *Kernel {
		k, err := dialAndStart(testContext(t), o)
		if err != nil {
			t.Fatal(err)
		}
		return k
	})
	o := w.options
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	from := netip.AddrPortFrom(alice, 5001)
	ask := func() (netip.AddrPort, error) {
		ctx, cancel := context.WithTimeout(testContext(t), twinPatience)
		defer cancel()
		return w.Subscriber.AskUDP(ctx, from, w.second.Addr())
	}
	if seen, err := ask(); err != nil || seen != from {
		t.Fatalf("%v is seen from %v: %v", from, seen, err)
	}
	entry := run(t, w.Lab, "conntrack", "-L", "-s", alice.String(), "-o", "id")
	if err := w.Kernel.Close(); err != nil {
		t.Fatal(err)
	}
	w.Kernel = startKernel(t, o)
	if seen, err := ask(); err != nil || seen != from {
		t.Errorf("after a restart %v is seen from %v: %v", from, seen, err)
	}
	id := entry[strings.Index(entry, "id="):]
	if now := run(t, w.Lab, "conntrack", "-L", "-s", alice.String(), "-o", "id"); !strings.Contains(now, strings.Fields(id)[0]) {
		t.Errorf("the session was not kept: %s, before %s", now, entry)
	}
	if err := w.SetNoNAT(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	testenv.Succeeds(t, func() error {
		seen, err := ask()
		if err == nil && !inBlock(blockOf(alice, nat.GateOpen, 0), seen) {
			err = fmt.Errorf("seen from %v", seen)
		}
		return err
	})
	if table := run(t, w.Lab, "nft", "list", "table", "ip", testTable); strings.Contains(table, chainNoNAT) || strings.Contains(table, "mark set") {
		t.Errorf("without a destination the table is\n%s", table)
	}
	if err := w.SetNoNAT(testContext(t), []nat.NoNAT{{Inside: []netip.Prefix{pool}, Remote: pool, Protocol: 47, Last: 65535}}); err == nil {
		t.Error("no NAT for GRE was accepted")
	}
}
