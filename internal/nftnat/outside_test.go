package nftnat

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// third is a network behind an interface of the CGN that is neither inside nor outside.
var third = struct{ gateway, host netip.Prefix }{
	netip.MustParsePrefix("192.168.99.1/24"), netip.MustParsePrefix("192.168.99.9/24"),
}

// neighbourhood is a lab in which the internet host routes the inside prefix, and that of a
// third network, to the CGN. No rules translate.
func neighbourhood(t *testing.T) wireTest {
	t.Helper()
	w := wireTest{Lab: newLab(t)}
	var err error
	if w.echo, err = w.StartEcho(netip.AddrPortFrom(w.Remotes[0], 7000)); err != nil {
		t.Fatal(err)
	}
	w.capture = captureInternet(t, w.Lab)
	for _, p := range []netip.Prefix{netlab.InsideGateway.Masked(), third.gateway.Masked()} {
		if err := w.Internet.AddRoute(netlab.Route{Destination: p, Gateway: netlab.OutsideGateway.Addr()}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// withNeighbours is a neighbourhood with the third network, and a CGN that runs.
func withNeighbours(t *testing.T) (w wireTest, other *netlab.Namespace, atAlice *netlab.Capture) {
	t.Helper()
	w = neighbourhood(t)
	w.Kernel = startKernel(t, labOptions(w.Lab))
	return w.withThird(t)
}

// withThird adds the third network, and captures towards the subscribers.
func (w wireTest) withThird(t *testing.T) (_ wireTest, other *netlab.Namespace, atAlice *netlab.Capture) {
	t.Helper()
	other, err := w.AddHost("other", third.host, netlab.Interface{Name: "m0", Addresses: []netip.Prefix{third.gateway}})
	if err != nil {
		t.Fatal(err)
	}
	atAlice, err = w.CGN.Capture(netlab.InsideInterface)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = atAlice.Close() })
	return w, other, atAlice
}

// strangers are packets that belong to no flow, from one address to another.
func strangers(from, to netip.AddrPort) map[string]netlab.Packet {
	of := func(protocol uint8, flags netlab.TCPFlags) netlab.Packet {
		return netlab.Packet{Protocol: protocol, Flags: flags, Source: from, Destination: to, Payload: []byte("stranger")}
	}
	return map[string]netlab.Packet{
		"udp": of(netlab.UDP, 0), "syn": of(netlab.TCP, netlab.SYN), "rst": of(netlab.TCP, netlab.RST),
		"ack": of(netlab.TCP, netlab.ACK), "echo": of(netlab.ICMP, 0), "gre": of(netlab.GRE, 0),
	}
}

func isStranger(p netlab.Packet) bool {
	return strings.Contains(string(p.Payload), "stranger") || p.Protocol == netlab.GRE || p.Flags == netlab.RST
}

// TestOutsideReachesNobody_NAT16 sends to a subscriber whose gate is open, by its inside
// address, from a neighbour that routes the inside prefix to the CGN, and from a third
// network. Nothing arrives, conntrack remembers nothing, and the subscriber's own flow between
// the same ends works.
func TestOutsideReachesNobody_NAT16(t *testing.T) {
	w, other, atAlice := withNeighbours(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))
	inside := netip.AddrPortFrom(alice, 5000)
	for place, from := range map[string]*netlab.Namespace{"outside": w.Internet, "third": other} {
		source := w.echo.Addr()
		if from == other {
			source = netip.AddrPortFrom(third.host.Addr(), 7000)
		}
		for kind, p := range strangers(source, inside) {
			t.Run(place+" "+kind, func(t *testing.T) {
				if err := from.Send(p); err != nil {
					t.Fatal(err)
				}
				if err := atAlice.Settle(testContext(t), w.CGN, alice); err != nil {
					t.Fatal(err)
				}
				if seen := atAlice.Matching(isStranger); len(seen) > 0 {
					t.Errorf("it arrives at the subscriber: %+v", seen[0])
				}
				w.wantNoEntryBetween(t, inside, p.Source)
				atAlice.Clear()
			})
		}
	}
	for name, ask := range map[string]func(context.Context, netip.AddrPort, netip.AddrPort) (netip.AddrPort, error){
		"tcp": w.Subscriber.AskTCP, "udp": w.Subscriber.AskUDP,
	} {
		if seen, err := ask(testContext(t), inside, w.echo.Addr()); err != nil || !inBlock(blockOf(alice, nat.GateOpen, 0), seen) {
			t.Errorf("the subscriber's own %s flow is seen from %v: %v", name, seen, err)
		}
	}
}

// wantNoEntryBetween checks that conntrack has no entry between two ends.
func (w wireTest) wantNoEntryBetween(t *testing.T, inside, stranger netip.AddrPort) {
	t.Helper()
	entries, err := w.CGN.Conntrack(testContext(t), inside.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e, "src="+stranger.Addr().String()+" dst="+inside.Addr().String()) {
			t.Errorf("conntrack remembers it: %s", e)
		}
	}
}

// TestNobodyElseIsTranslated_I3 sends with the source of a subscriber whose gate is open, from
// outside and from a third network, to each other and to a neighbour of that subscriber:
// nothing leaves, and conntrack remembers nothing.
func TestNobodyElseIsTranslated_I3(t *testing.T) {
	w, other, atAlice := withNeighbours(t)
	atThird := captureThird(t, w)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	for place, from := range map[string]*netlab.Namespace{"outside": w.Internet, "third": other} {
		for target, to := range map[string]netip.AddrPort{
			"internet": w.echo.Addr(), "third": netip.AddrPortFrom(third.host.Addr(), 7000), "inside": netip.AddrPortFrom(bob, 7000),
		} {
			for kind, p := range strangers(netip.AddrPortFrom(alice, 5000), to) {
				if err := from.Send(p); err != nil {
					t.Fatalf("%s to %s, %s: %v", place, target, kind, err)
				}
			}
		}
	}
	for _, c := range []struct {
		at *netlab.Capture
		to netip.Addr
	}{{w.capture, w.Remotes[0]}, {atThird, third.host.Addr()}, {atAlice, alice}} {
		if err := c.at.Settle(testContext(t), w.CGN, c.to); err != nil {
			t.Fatal(err)
		}
		left := c.at.Matching(func(p netlab.Packet) bool { return p.Outgoing && isStranger(p) })
		if len(left) > 0 {
			t.Errorf("%d packets left, the first is %+v", len(left), left[0])
		}
	}
	entries, err := w.CGN.Conntrack(testContext(t), alice)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, began, _ := strings.Cut(e, "src="); strings.HasPrefix(began, alice.String()+" ") {
			t.Errorf("conntrack remembers it: %s", e)
		}
	}
}

// TestOutsideReachesNoThirdNetwork_NAT16 sends from a neighbour on the outside, which routes a
// third network of the CGN's to it, to a host there. Nothing arrives, conntrack remembers
// nothing, and the host's own flows between the same ends work.
func TestOutsideReachesNoThirdNetwork_NAT16(t *testing.T) {
	w, other, _ := withNeighbours(t)
	atThird := captureThird(t, w)
	host := netip.AddrPortFrom(third.host.Addr(), 5000)
	for kind, p := range strangers(w.echo.Addr(), host) {
		t.Run(kind, func(t *testing.T) {
			if err := w.Internet.Send(p); err != nil {
				t.Fatal(err)
			}
			if err := atThird.Settle(testContext(t), w.CGN, third.host.Addr()); err != nil {
				t.Fatal(err)
			}
			if seen := atThird.Matching(isStranger); len(seen) > 0 {
				t.Errorf("it arrives: %+v", seen[0])
			}
			w.wantNoEntryBetween(t, host, p.Source)
			atThird.Clear()
		})
	}
	w.dropped(t, chainFromOutside, "neither inside nor outside")
	for name, ask := range map[string]func(context.Context, netip.AddrPort, netip.AddrPort) (netip.AddrPort, error){
		"tcp": other.AskTCP, "udp": other.AskUDP,
	} {
		if seen, err := ask(testContext(t), host, w.echo.Addr()); err != nil || seen != host {
			t.Errorf("the host's own %s flow is seen from %v: %v", name, seen, err)
		}
	}
}

// TestPoolIsNoSource_NAT16 has a neighbour on the outside, and a host of a third network, send
// through the CGN from the outside address of a subscriber, and from each of its ports, to a
// host that the subscriber talks to. Nothing passes or is remembered: the ports are free for
// the subscriber's own flows to that host.
func TestPoolIsNoSource_NAT16(t *testing.T) {
	w, other, _ := withNeighbours(t)
	e := blockOf(alice, nat.GateOpen, 0)
	apply(t, w, e)
	target := w.echo.Addr()
	for _, args := range [][]string{ // the internet host's packets to itself go by the CGN
		{"rule", "add", "pref", "10", "lookup", "local"},
		{"rule", "del", "pref", "0"},
		{"rule", "add", "pref", "5", "iif", "lo", "to", target.Addr().String(), "lookup", "99"},
		{"route", "add", "default", "via", netlab.OutsideGateway.Addr().String(), "table", "99"},
	} {
		if _, err := w.Internet.Output(testContext(t), "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	for place, from := range map[string]*netlab.Namespace{"outside": w.Internet, "third": other} {
		for port := e.First; port <= e.Last; port++ {
			p := netlab.Packet{Protocol: netlab.UDP, Source: netip.AddrPortFrom(eip, uint16(port)), Destination: target, Payload: []byte("stranger")}
			if err := from.Send(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.capture.Settle(testContext(t), w.CGN, target.Addr()); err != nil {
			t.Fatal(err)
		}
		entries, err := w.CGN.Conntrack(testContext(t), eip)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) > 0 {
			t.Errorf("from %s: conntrack remembers %d, the first is %s", place, len(entries), entries[0])
		}
		if seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 5000), target); err != nil || !inBlock(e, seen) {
			t.Errorf("after packets from %s the subscriber is seen from %v: %v", place, seen, err)
		}
		run(t, w.Lab, "conntrack", "-F")
	}
	w.dropped(t, chainForward, "outside source")
}

// TestPoolIsNoSourceOfMappings_NAT06_NAT16_I10 has a neighbour on the outside send from outside
// addresses to the mapped port of a subscriber, who is open to everybody. Nothing arrives, or is
// learned: a mapping of an outside address to itself would take the port from its subscriber, and
// its packet be a refresh from outside.
func TestPoolIsNoSourceOfMappings_NAT06_NAT16_I10(t *testing.T) {
	w := newWireTestWith(t, fullCone)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	host := w.host(t, 0, 9)
	s := w.socket(t, alice, 5000)
	mapped := seenAs(t, s, host)
	of := blockOf(bob, nat.GateOpen, 1)
	for port := of.First; port <= of.Last; port++ {
		for _, protocol := range []uint8{netlab.UDP, netlab.TCP} {
			p := netlab.Packet{Protocol: protocol, Source: netip.AddrPortFrom(eip, uint16(port)), Destination: mapped, Payload: []byte("stranger")}
			if err := w.Internet.Send(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.capture.Settle(testContext(t), w.CGN, w.Remotes[0]); err != nil {
		t.Fatal(err)
	}
	if n := w.learned(t, setTaken, eip); n != 1 {
		t.Errorf("%d ports of the outside address are taken, want that of alice alone", n)
	}
	if err := s.SetReadDeadline(time.Now().Add(silence)); err != nil {
		t.Fatal(err)
	}
	if n, from, err := s.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
		t.Errorf("alice got %d octets from %v", n, from)
	}
	third := w.host(t, 1, 10)
	other := w.socket(t, bob, 6000)
	wantPass(t, third, seenAs(t, other, host), other, portOf(third))
	w.dropped(t, chainToInside, "outside source")
}

// TestOutsideIsNoSubscriber_I10 has a neighbour on the outside send to the machine itself with
// the inside address of a subscriber: conntrack remembers nothing, for an entry would count as
// a session of the subscriber's, and keep it from opening its own.
func TestOutsideIsNoSubscriber_I10(t *testing.T) {
	w, _, _ := withNeighbours(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	source := netip.AddrPortFrom(alice, 5000)
	for _, to := range []netip.Prefix{netlab.OutsideGateway, netlab.InsideGateway} {
		for kind, p := range strangers(source, netip.AddrPortFrom(to.Addr(), 7000)) {
			if err := w.Internet.Send(p); err != nil {
				t.Fatalf("%s to %v: %v", kind, to, err)
			}
		}
	}
	if err := w.capture.Settle(testContext(t), w.CGN, w.Remotes[0]); err != nil {
		t.Fatal(err)
	}
	entries, err := w.CGN.Conntrack(testContext(t), alice)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("conntrack remembers %q", entries)
	}
	w.dropped(t, chainInput, "inside source, from outside")
	if seen, err := w.Subscriber.AskUDP(testContext(t), source, w.echo.Addr()); err != nil {
		t.Errorf("the subscriber is seen from %v: %v", seen, err)
	}
}

// captureThird captures towards the third network, until the end of the test.
func captureThird(t *testing.T, w wireTest) *netlab.Capture {
	t.Helper()
	c, err := w.CGN.Capture("m0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestThirdNetworkGetsWhatItIsOwed has the packets that still pass from outside: the ICMP
// errors of the third network's own flows, and flows that the operator maps to a host there.
func TestThirdNetworkGetsWhatItIsOwed(t *testing.T) {
	w, other, _ := withNeighbours(t)
	atThird := captureThird(t, w)
	from, closed := netip.AddrPortFrom(third.host.Addr(), 5001), netip.AddrPortFrom(w.Remotes[1], 9)
	conn, err := other.Dial(testContext(t), "udp4", from, closed)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	_, err = atThird.Await(testContext(t), func(p netlab.Packet) bool {
		return p.Outgoing && p.Quoted != nil && p.Quoted.Source == from && p.Quoted.Destination == closed
	})
	if err != nil {
		t.Errorf("the error of port unreachable: %v", err)
	}

	server, err := other.StartEcho(netip.AddrPortFrom(third.host.Addr(), 8080))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	run(t, w.Lab, "nft", `table ip others {
		chain pre { type nat hook prerouting priority -100; ip daddr 203.0.113.1 tcp dport 80 dnat to 192.168.99.9:8080; }
	}`)
	client := netip.AddrPortFrom(w.Remotes[0], 5002)
	if seen, err := w.Internet.AskTCP(testContext(t), client, netip.AddrPortFrom(netlab.OutsideGateway.Addr(), 80)); err != nil || seen != client {
		t.Errorf("the mapped host sees %v: %v", seen, err)
	}
}

// TestThirdNetworkThatIsPublic lets outside hosts reach third networks by option. They reach
// no subscriber.
func TestThirdNetworkThatIsPublic(t *testing.T) {
	w := neighbourhood(t)
	o := labOptions(w.Lab)
	o.OutsideToOthers = true
	w.Kernel = startKernel(t, o)
	w, other, atAlice := w.withThird(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	server, err := other.StartEcho(netip.AddrPortFrom(third.host.Addr(), 8080))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	client := netip.AddrPortFrom(w.Remotes[0], 5002)
	if seen, err := w.Internet.AskTCP(testContext(t), client, server.Addr()); err != nil || seen != client {
		t.Errorf("the host sees %v: %v", seen, err)
	}
	for _, p := range strangers(w.echo.Addr(), netip.AddrPortFrom(alice, 5000)) {
		if err := w.Internet.Send(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := atAlice.Settle(testContext(t), w.CGN, alice); err != nil {
		t.Fatal(err)
	}
	if seen := atAlice.Matching(isStranger); len(seen) > 0 {
		t.Errorf("it arrives at the subscriber: %+v", seen[0])
	}
}

// TestRepliesAndErrorsComeIn: an open flow gets its replies, and the ICMP errors of routers on
// its way.
func TestRepliesAndErrorsComeIn(t *testing.T) {
	w, _, atAlice := withNeighbours(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	if out, in := w.flow(t, alice).Probe(5 * time.Second); !out || !in {
		t.Errorf("the flow passes out %t, in %t", out, in)
	}
	closed := netip.AddrPortFrom(w.Remotes[1], 9) // a port without a listener: the host answers with an ICMP error
	conn, err := w.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(alice, 5001), closed)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	_, err = atAlice.Await(testContext(t), func(p netlab.Packet) bool {
		return p.Outgoing && p.Quoted != nil && p.Quoted.Source == netip.AddrPortFrom(alice, 5001) && p.Quoted.Destination == closed
	})
	if err != nil {
		t.Errorf("the error of port unreachable: %v", err)
	}
}

// TestErrorThatQuotesANeighbour_NAT16 sends ICMP errors from an unrelated host outside that
// quote a flow of bob's. An error to the outside address that he shares with alice is
// delivered to him, and never to her; an error to any other address is not delivered. No
// flow ends, and none changes its mapping.
func TestErrorThatQuotesANeighbour_NAT16(t *testing.T) {
	w, _, atAlice := withNeighbours(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	ask := func(inside netip.Addr) netip.AddrPort {
		t.Helper()
		seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(inside, 5000), w.echo.Addr())
		if err != nil {
			t.Fatalf("the flow of %v: %v", inside, err)
		}
		return seen
	}
	seen := map[netip.Addr]netip.AddrPort{alice: ask(alice), bob: ask(bob)}
	flows := map[string]*netlab.Flow{"alice": w.flow(t, alice), "bob": w.flow(t, bob)}
	bobs, another := flows["bob"].Source(), eip.Next()
	udp := func(from netip.AddrPort) netlab.Packet {
		return netlab.Packet{Protocol: netlab.UDP, Source: from, Destination: w.echo.Addr(), Payload: []byte("quoted")}
	}
	tcp := netlab.Packet{Protocol: netlab.TCP, Flags: netlab.ACK, Source: bobs, Destination: flows["bob"].Outside.Local()}
	for name, c := range map[string]struct {
		to     netip.Addr // of the error
		quoted netlab.Packet
		owner  netip.Addr // the subscriber that gets it
	}{
		"udp":                             {to: eip, quoted: udp(seen[bob]), owner: bob},
		"tcp":                             {to: eip, quoted: tcp, owner: bob},
		"to another outside address":      {to: another, quoted: udp(seen[bob])},
		"to alice's inside address":       {to: alice, quoted: udp(seen[bob])},
		"to bob's inside address":         {to: bob, quoted: udp(seen[bob])},
		"of inside, to alice's":           {to: alice, quoted: udp(netip.AddrPortFrom(bob, 5000))},
		"of inside, to bob's":             {to: bob, quoted: udp(netip.AddrPortFrom(bob, 5000))},
		"of inside, to outside":           {to: eip, quoted: udp(netip.AddrPortFrom(bob, 5000))},
		"of a port of his without a flow": {to: eip, quoted: udp(netip.AddrPortFrom(eip, uint16(blockOf(bob, nat.GateOpen, 1).Last)))},
	} {
		t.Run(name, func(t *testing.T) {
			atAlice.Clear()
			err := w.Internet.Send(netlab.Packet{
				Protocol: netlab.ICMP, Source: netip.AddrPortFrom(w.Remotes[1], 0), Destination: netip.AddrPortFrom(c.to, 0), Quoted: &c.quoted,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := atAlice.Settle(testContext(t), w.CGN, alice); err != nil {
				t.Fatal(err)
			}
			came := atAlice.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Quoted != nil })
			switch {
			case !c.owner.IsValid() && len(came) > 0:
				t.Errorf("it comes in: %+v", came[0])
			case c.owner.IsValid() && (len(came) != 1 || came[0].Destination.Addr() != c.owner || came[0].Quoted.Source.Addr() != c.owner):
				t.Errorf("%v does not get it, or others do: %+v", c.owner, came)
			}
			for inside, want := range seen {
				if got := ask(inside); got != want {
					t.Errorf("the flow of %v is seen from %v, was from %v", inside, got, want)
				}
			}
			for name, f := range flows {
				if out, in := f.Probe(5 * time.Second); !out || !in {
					t.Errorf("the flow of %s passes out %t, in %t", name, out, in)
				}
			}
		})
	}
}

// TestGateFacesInside keeps packets to a subscriber from an interface that is not inside, such
// as the default route when the route to the subscriber's access router is gone.
func TestGateFacesInside(t *testing.T) {
	w, other, _ := withNeighbours(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	flow := w.flow(t, alice)
	run(t, w.Lab, "ip", "route", "add", alice.String(), "via", third.host.Addr().String(), "dev", "m0")
	atThird, err := other.Capture("c0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = atThird.Close() })
	if _, in := flow.Probe(500 * time.Millisecond); in {
		t.Error("the flow comes in by another way")
	}
	w.dropped(t, chainForward, "towards an interface that is not inside")
	if err := atThird.Settle(testContext(t), w.CGN, third.host.Addr()); err != nil {
		t.Fatal(err)
	}
	if seen := atThird.Matching(func(p netlab.Packet) bool { return p.Destination.Addr() == alice }); len(seen) > 0 {
		t.Errorf("%d packets of the subscriber's flow go to a third network: %+v", len(seen), seen[0])
	}
}

// TestFlowsOfBefore has a subscriber's flows that began, either way, while nothing translated
// and another table made conntrack confirm them: before the table was made, and after others
// deleted it. They end once it is made, and then work. A flow redirected to the machine itself
// stays.
func TestFlowsOfBefore(t *testing.T) {
	for name, deleted := range map[string]bool{"before the first start": false, "while the table was away": true} {
		t.Run(name, func(t *testing.T) {
			w := neighbourhood(t)
			var k *Kernel
			if deleted {
				k = openKernel(t, labOptions(w.Lab)) // it does not run yet
				apply(t, k, blockOf(alice, nat.GateOpen, 0))
			}
			run(t, w.Lab, "nft", `flush ruleset
				table ip others {
					chain forward { type filter hook forward priority 0; ct state new counter; }
					chain pre { type nat hook prerouting priority -100; ip saddr 100.64.0.0/10 udp dport 5353 redirect to :53; }
					chain post { type nat hook postrouting priority 120; udp sport 5003 masquerade; }
				}`)
			w.beginUntranslated(t)
			if !deleted {
				k = openKernel(t, labOptions(w.Lab))
				apply(t, k, blockOf(alice, nat.GateOpen, 0))
			}
			runKernel(t, k)
			for _, port := range []uint16{5000, 5001, 5003} {
				// It keeps sending, as real ones do, so that an entry would never idle out.
				testenv.Succeeds(t, func() error {
					seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, port), w.echo.Addr())
					if err == nil && !inBlock(blockOf(alice, nat.GateOpen, 0), seen) {
						err = fmt.Errorf("the flow of port %d is seen from %v", port, seen)
					}
					return err
				})
			}
			testenv.Succeeds(t, func() error { return w.hasFlows(t, "sport=5002 dport=5353") })
		})
	}
}

// beginUntranslated begins flows of alice, and sends until conntrack holds them.
func (w wireTest) beginUntranslated(t *testing.T) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		w.send(t, netip.AddrPortFrom(alice, 5000))
		w.send(t, netip.AddrPortFrom(alice, 5003))
		for host, p := range map[*netlab.Namespace]netlab.Packet{
			w.Internet:   {Source: w.echo.Addr(), Destination: netip.AddrPortFrom(alice, 5001)},
			w.Subscriber: {Source: netip.AddrPortFrom(alice, 5002), Destination: netip.AddrPortFrom(w.Remotes[0], 5353)},
		} {
			p.Protocol = netlab.UDP
			if err := host.Send(p); err != nil {
				t.Fatal(err)
			}
		}
		return w.hasFlows(t, "src=100.64.0.10 dst=203.0.113.10 sport=5000", "src=203.0.113.10 dst=100.64.0.10 sport=7000 dport=5001",
			"dst=203.0.113.1 sport=7000 dport=5003", "sport=5002 dport=5353")
	})
}

// hasFlows returns an error unless conntrack holds an entry of alice of each kind.
func (w wireTest) hasFlows(t *testing.T, kinds ...string) error {
	t.Helper()
	entries, err := w.CGN.Conntrack(testContext(t), alice)
	for _, kind := range kinds {
		if err == nil && !slices.ContainsFunc(entries, func(e string) bool { return strings.Contains(e, kind) }) {
			err = fmt.Errorf("no entry %q among %q", kind, entries)
		}
	}
	return err
}

// TestDialledInterfaces has an inside interface that is listed by the beginning of its
// name.
func TestDialledInterfaces(t *testing.T) {
	w := neighbourhood(t)
	o := labOptions(w.Lab)
	o.InsideInterfaces = []string{"ppp*", netlab.InsideInterface}
	w.Kernel = startKernel(t, o)
	dialled := netip.MustParsePrefix("100.127.0.9/24")
	host, err := w.AddHost("dialled", dialled, netlab.Interface{Name: "ppp7", Addresses: []netip.Prefix{netip.MustParsePrefix("100.127.0.1/24")}})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, w, blockOf(dialled.Addr(), nat.GateOpen, 0), blockOf(alice, nat.GateOpen, 1))
	for from, host := range map[netip.Addr]*netlab.Namespace{dialled.Addr(): host, alice: w.Subscriber} {
		if seen, err := host.AskTCP(testContext(t), netip.AddrPortFrom(from, 0), w.echo.Addr()); err != nil || seen.Addr() != eip {
			t.Errorf("%v is seen from %v: %v", from, seen, err)
		}
	}
	if listed := run(t, w.Lab, "nft", "list", "chain", "ip", testTable, chainForward); !strings.Contains(listed, `iifname "ppp*" goto from_inside`) {
		t.Errorf("nft lists\n%s", listed)
	}
}
