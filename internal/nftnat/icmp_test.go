package nftnat

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// An icmpTest is a wireTest with a UDP flow and an echo of alice's, and captures on both sides.
type icmpTest struct {
	wireTest
	atAlice *netlab.Capture
	seen    netip.AddrPort // of the flow from port 5000
	echoID  uint16         // of the ping with id 77, as seen outside
}

func newICMPTest(t *testing.T) icmpTest {
	t.Helper()
	w := icmpTest{wireTest: newWireTest(t)}
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	var err error
	if w.atAlice, err = w.CGN.Capture(netlab.InsideInterface); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.atAlice.Close() })
	w.seen = w.ask(t, 5000)
	ping, err := w.Ping(testContext(t), alice, 77)
	if err != nil {
		t.Fatal(err)
	}
	w.echoID = ping.ID
	return w
}

func (w icmpTest) ask(t *testing.T, port uint16) netip.AddrPort {
	t.Helper()
	seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, port), w.echo.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// flowQuoted is a packet of the UDP flow as an error from outside quotes it.
func (w icmpTest) flowQuoted() *netlab.Packet {
	return &netlab.Packet{Protocol: netlab.UDP, Source: w.seen, Destination: w.echo.Addr(), Payload: []byte("quoted")}
}

// pingQuoted is the echo request as an error from outside quotes it.
func (w icmpTest) pingQuoted() *netlab.Packet {
	return &netlab.Packet{Protocol: netlab.ICMP, Source: netip.AddrPortFrom(eip, w.echoID), Destination: netip.AddrPortFrom(w.Remotes[0], 0)}
}

// errorTo is an ICMP error of a router outside.
func (w icmpTest) errorTo(kind, code uint8, quoted *netlab.Packet) netlab.Packet {
	return netlab.Packet{
		Protocol: netlab.ICMP, Type: kind, Code: code, Quoted: quoted,
		Source: netip.AddrPortFrom(w.Remotes[1], 0), Destination: netip.AddrPortFrom(eip, 0),
	}
}

// arrived sends a packet from outside, and returns the ICMP errors that came to the subscriber.
func (w icmpTest) arrived(t *testing.T, p netlab.Packet) []netlab.Packet {
	t.Helper()
	w.atAlice.Clear()
	if err := w.Internet.Send(p); err != nil {
		t.Fatal(err)
	}
	if err := w.capture.Settle(testContext(t), w.Internet, netlab.OutsideGateway.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := w.atAlice.Settle(testContext(t), w.CGN, alice); err != nil {
		t.Fatal(err)
	}
	return w.atAlice.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Quoted != nil })
}

const icmpUnreachable, icmpQuench, icmpRedirect, icmpExceeded, icmpParameter, icmpInformation = 3, 4, 5, 11, 12, 15

// TestErrorsFromOutside_NAT11_NAT23_NAT24_NAT42 sends every kind of error about a flow and about
// a query: it arrives with its type, code and MTU, and quotes the packet as the subscriber sent
// it. Mappings stay.
func TestErrorsFromOutside_NAT11_NAT23_NAT24_NAT42(t *testing.T) {
	w := newICMPTest(t)
	for _, e := range []struct {
		kind, code uint8
		mtu        uint16
	}{
		{icmpUnreachable, 0, 0}, {icmpUnreachable, 1, 0}, {icmpUnreachable, 2, 0}, {icmpUnreachable, 3, 0}, {icmpUnreachable, 4, 1280},
		{icmpUnreachable, 10, 0}, {icmpUnreachable, 13, 0}, {icmpExceeded, 0, 0}, {icmpExceeded, 1, 0}, {icmpParameter, 0, 0},
	} {
		flow, ping := w.flowQuoted(), w.pingQuoted()
		withOptions := w.flowQuoted()
		withOptions.Options = []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0} // record route (RFC 791)
		for name, c := range map[string]struct {
			quoted *netlab.Packet
			inside netip.AddrPort
		}{
			"flow": {flow, netip.AddrPortFrom(alice, 5000)}, "flow with IP options": {withOptions, netip.AddrPortFrom(alice, 5000)},
			"query": {ping, netip.AddrPortFrom(alice, 77)},
		} {
			t.Run(fmt.Sprintf("type %d code %d %s", e.kind, e.code, name), func(t *testing.T) {
				p := w.errorTo(e.kind, e.code, c.quoted)
				p.MTU = e.mtu
				came := w.arrived(t, p)
				if len(came) != 1 {
					t.Fatalf("%d errors came in: %+v", len(came), came)
				}
				got := came[0]
				if got.Type != e.kind || got.Code != e.code || got.MTU != e.mtu {
					t.Errorf("it came as type %d code %d MTU %d", got.Type, got.Code, got.MTU)
				}
				if got.Source.Addr() != w.Remotes[1] || got.Destination.Addr() != alice {
					t.Errorf("it came from %v to %v", got.Source, got.Destination)
				}
				if got.Quoted.Source != c.inside || got.Quoted.Destination.Addr() != w.Remotes[0] {
					t.Errorf("it quotes %v to %v, want %v", got.Quoted.Source, got.Quoted.Destination, c.inside)
				}
			})
		}
	}
	if again := w.ask(t, 5000); again != w.seen {
		t.Errorf("the flow is seen from %v, was from %v", again, w.seen)
	}
	if again, err := w.Ping(testContext(t), alice, 77); err != nil || again.ID != w.echoID {
		t.Errorf("the query is seen as %+v, was %d: %v", again, w.echoID, err)
	}
}

// TestErrorsFromInside_NAT23 has the subscriber send errors about packets that came in: outside,
// they come from the outside address and quote what was sent there.
func TestErrorsFromInside_NAT23(t *testing.T) {
	w := newICMPTest(t)
	for _, e := range []struct{ kind, code uint8 }{{icmpUnreachable, 3}, {icmpUnreachable, 1}, {icmpExceeded, 1}} {
		for _, options := range [][]byte{nil, {1, 1, 1, 0}} {
			w.capture.Clear()
			err := w.Subscriber.Send(netlab.Packet{
				Protocol: netlab.ICMP, Type: e.kind, Code: e.code, Source: netip.AddrPortFrom(alice, 0), Destination: netip.AddrPortFrom(w.Remotes[0], 0),
				Quoted: &netlab.Packet{Protocol: netlab.UDP, Source: w.echo.Addr(), Destination: netip.AddrPortFrom(alice, 5000), Options: options, Payload: []byte("quoted")},
			})
			if err != nil {
				t.Fatal(err)
			}
			left, err := w.capture.Await(testContext(t), func(p netlab.Packet) bool { return p.Outgoing && p.Quoted != nil })
			if err != nil {
				t.Fatal(err)
			}
			if left.Type != e.kind || left.Code != e.code || left.Source.Addr() != eip || left.Destination.Addr() != w.Remotes[0] {
				t.Errorf("%+v left as type %d code %d from %v to %v", e, left.Type, left.Code, left.Source, left.Destination)
			}
			if left.Quoted.Source != w.echo.Addr() || left.Quoted.Destination != w.seen {
				t.Errorf("it quotes %v to %v, want %v to %v", left.Quoted.Source, left.Quoted.Destination, w.echo.Addr(), w.seen)
			}
		}
	}
	w.wantNoLeak(t, alice)
}

// TestErrorsThatAreDropped_NAT23: without a mapping, or with a wrong checksum.
func TestErrorsThatAreDropped_NAT23(t *testing.T) {
	w := newICMPTest(t)
	stranger := w.flowQuoted()
	stranger.Source = netip.AddrPortFrom(eip, w.seen.Port()^1)
	elsewhere := w.flowQuoted()
	elsewhere.Destination = netip.AddrPortFrom(w.Remotes[1], 4)
	for name, p := range map[string]netlab.Packet{
		"port without a mapping": w.errorTo(icmpUnreachable, 3, stranger),
		"never sent there":       w.errorTo(icmpUnreachable, 3, elsewhere),
		"another protocol":       w.errorTo(icmpUnreachable, 3, &netlab.Packet{Protocol: netlab.TCP, Flags: netlab.ACK, Source: w.seen, Destination: w.echo.Addr()}),
		"query without a mapping": w.errorTo(icmpUnreachable, 1, &netlab.Packet{
			Protocol: netlab.ICMP, Source: netip.AddrPortFrom(eip, w.echoID^1), Destination: netip.AddrPortFrom(w.Remotes[0], 0)}),
	} {
		if came := w.arrived(t, p); len(came) > 0 {
			t.Errorf("%s: it came in: %+v", name, came[0])
		}
	}
	bad := w.errorTo(icmpUnreachable, 3, w.flowQuoted())
	bad.BadChecksum = true
	if came := w.arrived(t, bad); len(came) > 0 {
		t.Errorf("wrong checksum: it came in: %+v", came[0])
	}
	bad.BadChecksum = false
	if came := w.arrived(t, bad); len(came) != 1 {
		t.Errorf("%d came in with the right checksum", len(came))
	}
	own := netlab.Packet{ // about a packet that never came in
		Protocol: netlab.ICMP, Source: netip.AddrPortFrom(alice, 0), Destination: netip.AddrPortFrom(w.Remotes[0], 0),
		Quoted: &netlab.Packet{Protocol: netlab.UDP, Source: netip.AddrPortFrom(w.Remotes[0], 4), Destination: netip.AddrPortFrom(alice, 6000)},
	}
	if err := w.Subscriber.Send(own); err != nil {
		t.Fatal(err)
	}
	w.wantNoLeak(t, alice)
	left := w.capture.Matching(func(p netlab.Packet) bool {
		return p.Outgoing && p.Quoted != nil && p.Source.Addr() != netlab.OutsideGateway.Addr() // which answers Settle
	})
	if len(left) > 0 {
		t.Errorf("the subscriber's left: %+v", left[0])
	}
}

// TestErrorRefreshesNothing_NAT24: an error about a query neither ends its entry nor prolongs it.
func TestErrorRefreshesNothing_NAT24(t *testing.T) {
	w := newICMPTest(t)
	left := func() int {
		t.Helper()
		entries, err := w.CGN.Conntrack(testContext(t), alice)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if f := strings.Fields(e); f[2] == "icmp" {
				seconds, err := strconv.Atoi(f[4])
				if err != nil {
					t.Fatal(err)
				}
				return seconds
			}
		}
		t.Fatalf("no entry of the query: %q", entries)
		return 0
	}
	full := int(testTimeouts.ICMP / time.Second)
	testenv.Eventually(t, "two seconds of the timeout", func() bool { return left() < full-2 })
	before := left()
	if came := w.arrived(t, w.errorTo(icmpUnreachable, 1, w.pingQuoted())); len(came) != 1 {
		t.Fatalf("%d errors came in", len(came))
	}
	if after := left(); after > before {
		t.Errorf("%d s were left before the error, %d after", before, after)
	}
}

// TestEchoIdentifier_NAT21: pings of one identifier to two hosts are seen with the same one.
func TestEchoIdentifier_NAT21(t *testing.T) {
	w := newICMPTest(t)
	for _, to := range w.Remotes {
		watch, err := w.Internet.WatchPings(to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Subscriber.Ping(testContext(t), alice, to, 77); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the ping", func() bool { return len(watch.Seen()) > 0 })
		if got := watch.Seen()[0]; got.ID != w.echoID || got.Source != eip {
			t.Errorf("%v sees %+v, want id %d", to, got, w.echoID)
		}
		_ = watch.Close()
	}
}

// TestObsoleteICMP_NAT42: source quench, redirect and information request pass neither way, and
// are counted, but for redirects about translated flows: those the kernel's NAT drops itself.
func TestObsoleteICMP_NAT42(t *testing.T) {
	w := newICMPTest(t)
	for name, p := range map[string]netlab.Packet{
		"source quench": w.errorTo(icmpQuench, 0, w.flowQuoted()), "redirect": w.errorTo(icmpRedirect, 1, w.flowQuoted()),
	} {
		if came := w.arrived(t, p); len(came) > 0 {
			t.Errorf("%s came in: %+v", name, came[0])
		}
	}
	w.countedAs(t, nat.Drop{Reason: nat.DropObsoleteICMP, Direction: nat.DropIn}, 1)

	w.capture.Clear()
	inbound := &netlab.Packet{Protocol: netlab.UDP, Source: w.echo.Addr(), Destination: netip.AddrPortFrom(alice, 5000)}
	for _, p := range []netlab.Packet{
		{Type: icmpQuench, Quoted: inbound}, {Type: icmpRedirect, Code: 1, Quoted: inbound}, {Type: icmpInformation}, {Type: icmpInformation + 1},
	} {
		p.Protocol, p.Source, p.Destination = netlab.ICMP, netip.AddrPortFrom(alice, 0), netip.AddrPortFrom(w.Remotes[0], 0)
		if err := w.Subscriber.Send(p); err != nil {
			t.Fatal(err)
		}
	}
	w.countedAs(t, nat.Drop{Reason: nat.DropObsoleteICMP, Direction: nat.DropOut}, 3)
	w.wantNoLeak(t, alice)
	if left := w.capture.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Protocol == netlab.ICMP }); len(left) > 0 {
		t.Errorf("it left: %+v", left[0])
	}
}

// countedAs waits until the counter of a drop has counted a number of packets.
func (w wireTest) countedAs(t *testing.T, d nat.Drop, packets int) {
	t.Helper()
	want := fmt.Sprintf("packets %d ", packets)
	testenv.Succeeds(t, func() error {
		listed := run(t, w.Lab, "nft", "list", "counter", "ip", testTable, counterName(d))
		if !strings.Contains(listed, want) {
			return fmt.Errorf("counter %s has not counted %d packets:\n%s", counterName(d), packets, listed)
		}
		return nil
	})
}

// TestGeneratedICMPIsLimited_NAT42 sends a thousand packets whose hops end at the CGN: the
// subscriber is told, but not each time (RFC 1812 section 4.3.2.8).
func TestGeneratedICMPIsLimited_NAT42(t *testing.T) {
	w := newICMPTest(t)
	w.atAlice.Clear()
	const sent = 1000
	for i := range sent {
		err := w.Subscriber.Send(netlab.Packet{
			Protocol: netlab.UDP, TTL: 1, Source: netip.AddrPortFrom(alice, 5000), Destination: netip.AddrPortFrom(w.Remotes[0], uint16(33000+i)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.atAlice.Settle(testContext(t), w.CGN, alice); err != nil {
		t.Fatal(err)
	}
	told := w.atAlice.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Type == icmpExceeded && p.Quoted != nil })
	if len(told) == 0 || len(told) > sent/10 {
		t.Errorf("%d errors for %d packets", len(told), sent)
	}
}

// TestTraceroute_NAT23 traces by UDP, ICMP and TCP to a host that is one router behind the
// internet host.
func TestTraceroute_NAT23(t *testing.T) {
	testenv.Require(t, testenv.Traceroute)
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	target := netip.MustParseAddr("192.0.2.9") // it does not exist
	for _, c := range []struct {
		in   *netlab.Namespace
		args string
	}{
		{w.Internet, "ip link add d0 type veth peer name d1"}, {w.Internet, "ip link set d1 up"}, {w.Internet, "ip addr add 192.0.2.1/24 dev d0"}, {w.Internet, "ip link set d0 up"},
		{w.Internet, "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev d0"}, {w.Internet, "sysctl -qw net.ipv4.ip_forward=1"},
		{w.CGN, "ip route add 192.0.2.0/24 via " + w.Remotes[0].String()},
	} {
		words := strings.Fields(c.args)
		if _, err := c.in.Output(testContext(t), words[0], words[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	for _, how := range []string{"-U", "-I", "-T"} {
		t.Run(how, func(t *testing.T) {
			trace := func(to netip.Addr, hops string) string {
				ctx, cancel := context.WithTimeout(testContext(t), 30*time.Second)
				defer cancel()
				out, err := w.Subscriber.Output(ctx, "traceroute", "-n", "-q1", "-w2", "-N1", "-m"+hops, how, "-s", alice.String(), to.String())
				if err != nil {
					t.Fatal(err)
				}
				return string(out)
			}
			beyond := trace(target, "2")
			if !strings.Contains(beyond, " 1  "+netlab.InsideGateway.Addr().String()) || !strings.Contains(beyond, " 2  "+w.Remotes[0].String()) {
				t.Errorf("the path is\n%s", beyond)
			}
			if last := trace(w.Remotes[0], "3"); !strings.Contains(last, " 2  "+w.Remotes[0].String()) || strings.Contains(last, " 3  ") {
				t.Errorf("the path to the host itself is\n%s", last)
			}
		})
	}
	w.wantNoLeak(t, alice)
}
