package nftnat

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// askerTest sends requests to the port of PCP, where a socket takes them.
type askerTest struct {
	wireTest
	server *net.UDPConn
	count  int
}

func (a *askerTest) send(t *testing.T, from *netlab.Namespace, source, server netip.Addr) string {
	t.Helper()
	a.count++
	text := fmt.Sprint("request ", a.count)
	err := from.Send(netlab.Packet{
		Protocol: netlab.UDP, Source: netip.AddrPortFrom(source, 5000), Destination: netip.AddrPortFrom(server, serverPort), Payload: []byte(text),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// arrives reads until the text of a request comes, or nothing does for a while.
func (a *askerTest) arrives(t *testing.T, text string, within time.Duration) bool {
	t.Helper()
	for buf := make([]byte, 100); ; {
		if err := a.server.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		n, err := a.server.Read(buf)
		if err != nil {
			return false
		}
		if string(buf[:n]) == text {
			return true
		}
	}
}

// TestRequests_PCP01_PCP10: requests of PCP reach the machine from subscribers with an open gate and
// from third parties by other interfaces, at a bounded rate, and from nobody else; without PCP
// everybody's do.
func TestRequests_PCP01_PCP10(t *testing.T) {
	lab := newLab(t)
	k := startKernel(t, labOptions(lab))
	server, err := lab.CGN.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), serverPort))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	a := &askerTest{wireTest: wireTest{Lab: lab, Kernel: k}, server: server}
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	inside, outside := netlab.InsideGateway.Addr(), netlab.OutsideGateway.Addr()
	portal, host := netip.MustParseAddr("192.0.2.77"), lab.Remotes[0]
	const soon = 5 * time.Second
	if !a.arrives(t, a.send(t, lab.Internet, host, outside), soon) {
		t.Error("without PCP a packet from outside does not arrive")
	}
	if err := k.SetPCP(testContext(t), PCP{On: true, ThirdParty: []netip.Prefix{netip.PrefixFrom(portal, 32)}}); err != nil {
		t.Fatal(err)
	}
	gateway := netlab.Interface{Name: "m0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.65/26")}}
	management, err := lab.AddHost("portal", netip.PrefixFrom(portal, 26), gateway)
	if err != nil {
		t.Fatal(err)
	}
	if !a.arrives(t, a.send(t, lab.Subscriber, alice, inside), soon) {
		t.Error("a subscriber's request does not arrive")
	}
	if !a.arrives(t, a.send(t, management, portal, gateway.Addresses[0].Addr()), soon) {
		t.Error("the portal's request does not arrive")
	}
	refused := nat.Drop{Reason: nat.DropPCPSource, Direction: nat.DropLocal}
	for i, wrong := range []func() string{
		func() string { return a.send(t, lab.Subscriber, bob, inside) },
		func() string { return a.send(t, lab.Subscriber, portal, inside) }, // spoofed
		func() string {
			return a.send(t, management, netip.MustParseAddr("192.0.2.78"), gateway.Addresses[0].Addr())
		},
		func() string { return a.send(t, lab.Internet, host, outside) },
		func() string { return a.send(t, lab.Internet, portal, outside) },
	} {
		text := wrong()
		a.countedAs(t, refused, i+1)
		if a.arrives(t, text, time.Millisecond) {
			t.Errorf("number %d of the strangers arrives", i)
		}
	}
	apply(t, k, nat.Entry{Inside: alice})
	a.send(t, lab.Subscriber, alice, inside)
	a.countedAs(t, refused, 6)

	apply(t, k, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	for range 2 * askedBurst {
		a.send(t, lab.Subscriber, alice, inside)
	}
	a.dropped(t, chainAskersRate, "of one address")
	if !a.arrives(t, a.send(t, lab.Subscriber, bob, inside), soon) {
		t.Error("bob's request does not arrive while alice is beyond her rate")
	}
	if err := k.SetPCP(testContext(t), PCP{}); err != nil {
		t.Fatal(err)
	}
	testenv.Succeeds(t, func() error {
		if !a.arrives(t, a.send(t, lab.Internet, host, outside), soon) {
			return fmt.Errorf("after PCP was switched off a packet does not arrive")
		}
		return nil
	})
	if err := k.SetPCP(testContext(t), PCP{ThirdParty: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}); err == nil {
		t.Error("an IPv6 prefix is taken")
	}
}
