package system

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// socket opens a UDP socket.
func (w *world) socket(n *netlab.Namespace, at netip.AddrPort) *net.UDPConn {
	w.t.Helper()
	conn, err := n.ListenUDP(at)
	w.must(err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// arrives sends a datagram, and returns the source that the receiver sees, if it gets it in time.
func (w *world) arrives(from *net.UDPConn, to netip.AddrPort, at *net.UDPConn, within time.Duration) (source netip.AddrPort, ok bool) {
	w.t.Helper()
	text := fmt.Sprint(time.Now().UnixNano())
	_, err := from.WriteToUDPAddrPort([]byte(text), to)
	w.must(err)
	w.must(at.SetReadDeadline(time.Now().Add(within)))
	for buf := make([]byte, 100); ; {
		n, source, err := at.ReadFromUDPAddrPort(buf)
		if err != nil {
			return netip.AddrPort{}, false
		}
		if string(buf[:n]) == text {
			return netip.AddrPortFrom(source.Addr().Unmap(), source.Port()), true
		}
	}
}

// TestFullConeOfAGroup_NAT07_DEL02 goes through the whole program: a reload makes a group full
// cone; a host that the subscriber never sent to reaches its mapped port, after kill -9 and a
// restart too; the end of the session leaves no mapping, and none comes back with the next one.
func TestFullConeOfAGroup_NAT07_DEL02(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	subscriber := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000))
	host := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[0], 7200))
	at := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	strangers := uint16(7300)
	// reached reports whether another new host reaches the subscriber.
	reached := func(seen netip.AddrPort, within time.Duration) bool {
		strangers++
		_, ok := w.arrives(w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], strangers)), seen, subscriber, within)
		return ok
	}
	const soon, silence = 5 * time.Second, 700 * time.Millisecond

	before, ok := w.arrives(subscriber, at(host), host, soon)
	if !ok || reached(before, silence) {
		t.Fatalf("without a mapping: the subscriber is seen as %v (%t), or others reach it", before, ok)
	}
	w.reload("  - {name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28], hold: 2s, filtering: endpoint_independent}\n", true)
	seen, ok := w.arrives(subscriber, at(host), host, soon)
	if !ok || seen != before {
		t.Fatalf("the standing flow is seen as %v (%t) after the reload, before as %v", seen, ok, before)
	}
	if !reached(seen, soon) {
		t.Errorf("no other host reaches %v", seen)
	}
	w.soon(15*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the mapping to be counted", func() (bool, error) {
			n, err := w.Daemon.Metric(ctx, "sessiond_learned_mappings")
			return n == "1", err
		})
	})
	w.shows("sessiond_learned_mappings_limit", "262144")

	w.must(w.Daemon.Kill())
	if !reached(seen, soon) {
		t.Error("no other host reaches the subscriber while no daemon runs")
	}
	w.must(w.Daemon.Start(w.ctx))
	if !reached(seen, soon) {
		t.Error("no other host reaches the subscriber after a kill")
	}
	if _, err := w.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	w.must(w.Daemon.Start(w.ctx))
	if !reached(seen, soon) {
		t.Error("no other host reaches the subscriber after a restart")
	}
	other := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], 7250))
	if now, ok := w.arrives(subscriber, at(other), other, soon); !ok || now != seen {
		t.Errorf("towards a new host the subscriber is seen as %v (%t) after a restart, before as %v", now, ok, seen)
	}
	w.ctl("reconcile")

	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.gone(alice)
	if reached(seen, silence) {
		t.Error("another host reaches the subscriber after its session")
	}
	w.online(sessionOf(alice, "a-2"))
	if reached(seen, silence) {
		t.Error("the next session has the mapping of the last one")
	}
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-2")))
	w.gone(alice)
}

// TestNeighboursAreFiltered_NAT09_DEL02 goes through the whole program: in a group with learned mappings and
// the default filtering a neighbour is refused, until the mapping has sent to it, after kill -9
// too; the end of a session leaves none of this.
func TestNeighboursAreFiltered_NAT09_DEL02(t *testing.T) {
	w := start(t, rig.Options{})
	w.reload("  - {name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28], hold: 2s, mapping: endpoint_independent}\n", true)
	w.online(sessionOf(alice, "a-1"))
	w.online(sessionOf(bob, "b-1"))
	const soon, silence = 5 * time.Second, 700 * time.Millisecond
	remote := netip.AddrPortFrom(w.Lab.Remotes[0], 7200)
	host := w.socket(w.Lab.Internet, remote)
	a, b := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000)), w.socket(w.Lab.Subscriber, netip.AddrPortFrom(bob, 5000))
	atA, ok := w.arrives(a, remote, host, soon)
	atB, okB := w.arrives(b, remote, host, soon)
	if !ok || !okB {
		t.Fatal("a subscriber does not reach the host")
	}
	if _, ok := w.arrives(a, atB, b, silence); ok {
		t.Error("a neighbour reaches a mapping that has not sent to it")
	}
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	if seen, ok := w.arrives(b, atA, a, soon); !ok || seen != atB {
		t.Errorf("a mapping that has sent is not reached: seen as %v, %t; want %v", seen, ok, atB)
	}
	if seen, ok := w.arrives(a, atB, b, soon); !ok || seen != atA {
		t.Errorf("the answer is seen as %v, %t; want %v", seen, ok, atA)
	}
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.gone(alice)
	table, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "table", "ip", "sessiond")
	w.must(err)
	for _, left := range []string{alice.String() + " ", "udp . " + atA.Addr().String() + " . " + fmt.Sprint(atA.Port()) + " . "} {
		if strings.Contains(string(table), left) {
			t.Errorf("%q is left in the table", left)
		}
	}
}
