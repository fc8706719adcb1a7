package radiusacct_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"layeh.com/radius/rfc2865"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestRepliesPassNarrowLinks_ACCT11 has a NAS behind a link of 1492 octets, as with PPPoE,
// on which ICMP is filtered: a reply that is a little too long must not depend on path MTU
// discovery.
func TestRepliesPassNarrowLinks_ACCT11(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Nft)
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	narrow(t, lab)
	sizes := []int{1484, 1493, 1503, 4000} // with headers
	t.Run("IPv4", func(t *testing.T) {
		c, err := lab.Internet.Capture("r0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n := labNAS(t, lab, "0.0.0.0:0", "udp4", lab.Remotes[0])
		for i, size := range sizes {
			n.ask(withProxyStates(byte(i), size-20-8), secret)
		}
		if err := c.Settle(t.Context(), lab.Internet, netlab.OutsideGateway.Addr()); err != nil {
			t.Fatal(err)
		}
		replies, fragments := 0, 0
		for _, p := range c.Matching(func(p netlab.Packet) bool {
			return p.Outgoing && p.Source.Addr() == lab.Remotes[0] && p.Destination.Port() != 9
		}) {
			if p.DF {
				t.Errorf("a reply to %v leaves with DF", p.Destination)
			}
			if p.Source.Port() == n.to.Port() {
				replies++
			}
			if p.Fragment {
				fragments++
			}
		}
		if replies != len(sizes) || fragments != 2+3 {
			t.Errorf("%d replies and %d fragments left, want %d and 5: one in two, one in three", replies, fragments, len(sizes))
		}
	})
	for _, listen := range []string{"[::]:0", ":0"} {
		t.Run("IPv6 to "+listen, func(t *testing.T) {
			n := labNAS(t, lab, listen, "udp6", netip.MustParseAddr("2001:db8:1::10"))
			for i, size := range []int{1484, 1503, 4000} { // 1493 needs Packet Too Big (RFC 8201)
				n.ask(withProxyStates(byte(i), size-40-8), secret)
			}
		})
	}
	t.Run("IPv4 to a socket of both families", func(t *testing.T) {
		n := labNAS(t, lab, ":0", "udp4", lab.Remotes[0])
		for i, size := range sizes {
			n.ask(withProxyStates(byte(i), size-20-8), secret)
		}
	})
}

// narrow sets the NAS's link to 1492 octets, filters ICMP about it, and adds IPv6.
func narrow(t *testing.T, lab *netlab.Lab) {
	t.Helper()
	run := func(ns *netlab.Namespace, command ...string) {
		t.Helper()
		if _, err := ns.Output(t.Context(), command[0], command[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	for ns, address := range map[*netlab.Namespace]string{
		lab.Subscriber: "c0 2001:db8::10/64", lab.CGN: "s0 2001:db8::1/64", lab.Internet: "r0 2001:db8:1::10/64",
	} {
		var iface, addr string
		fmt.Sscan(address, &iface, &addr)
		if err := ns.Do(func() error { return withIPv6(iface) }); err != nil {
			t.Fatal(err)
		}
		run(ns, "ip", "-6", "addr", "add", addr, "dev", iface, "nodad")
	}
	run(lab.CGN, "ip", "-6", "addr", "add", "2001:db8:1::1/64", "dev", "i0", "nodad")
	run(lab.Subscriber, "ip", "-6", "route", "add", "2001:db8:1::/64", "via", "2001:db8::1")
	run(lab.Internet, "ip", "-6", "route", "add", "2001:db8::/64", "via", "2001:db8:1::1")
	run(lab.Internet, "ip", "route", "add", "100.64.0.0/10", "via", netlab.OutsideGateway.Addr().String())
	run(lab.CGN, "ip", "link", "set", "s0", "mtu", "1492")
	run(lab.Subscriber, "ip", "link", "set", "c0", "mtu", "1492")
	run(lab.CGN, "nft", "table inet quiet { chain out { type filter hook output priority 0; icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }")
}

// withIPv6 switches on IPv6 in a namespace of a lab.
func withIPv6(iface string) error {
	for _, of := range []string{"all", "default", iface} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+of+"/disable_ipv6", []byte("0"), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644)
}

// labNAS returns a NAS in the subscriber's namespace, and runs a server at the internet
// host.
func labNAS(t *testing.T, place *netlab.Lab, listen, network string, at netip.Addr) *nas {
	t.Helper()
	o := radiusacct.Options{Recorder: &recorder{}}
	everywhere(listen)(&o)
	var server *radiusacct.Server
	err := place.Internet.Do(func() (err error) { // so that its sockets are in that namespace
		server, err = radiusacct.New(o)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Server: server}
	l.run(t)
	var conn *net.UDPConn
	err = place.Subscriber.Do(func() (err error) {
		conn, err = net.ListenUDP(network, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &nas{t: t, conn: conn, to: netip.AddrPortFrom(at, l.Addrs()[0].Port())}
}

// withProxyStates returns a Start whose reply has a certain size, without the headers of
// UDP and IP.
func withProxyStates(id byte, size int) []byte {
	var states [][]byte
	for rest := size - 20; rest > 0; {
		n := min(rest, 255)
		if rest-n == 1 {
			n-- // an attribute has 2 octets at least
		}
		states = append(states, attribute(rfc2865.ProxyState_Type, bytes.Repeat([]byte{id}, n-2)))
		rest -= n
	}
	return startRequest(id, "narrow-"+strconv.Itoa(size), states...)
}
