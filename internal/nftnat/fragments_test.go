package nftnat

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// setMTU sets the MTU of an interface of the CGN.
func (w wireTest) setMTU(t *testing.T, name string, mtu int) {
	t.Helper()
	run(t, w.Lab, "ip", "link", "set", name, "mtu", strconv.Itoa(mtu))
}

// wantNoneLeft checks that no packet with alice's inside address left. It does not look at what
// came in, as wantNoLeak does: the kernel fragments in the buffers of the fragments that it
// received, which the capture shares, and so writes the new header over theirs.
func (w wireTest) wantNoneLeft(t *testing.T) {
	t.Helper()
	if err := w.capture.Settle(testContext(t), w.CGN, w.Remotes[0]); err != nil {
		t.Fatal(err)
	}
	if leaked := w.capture.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Mentions(alice) }); len(leaked) > 0 {
		t.Errorf("%d packets leaked, the first is %+v", len(leaked), leaked[0])
	}
}

// TestPacketsTooBig_NAT12 sends packets larger than the next link, both ways. With DF, the
// sender is told the MTU, about the packet as it sent it; without, the packet is fragmented.
func TestPacketsTooBig_NAT12(t *testing.T) {
	const mtu, size = 1280, 1400
	for way, narrow := range map[string]string{"out": netlab.OutsideInterface, "in": netlab.InsideInterface} {
		t.Run(way, func(t *testing.T) {
			w := newICMPTest(t)
			w.setMTU(t, narrow, mtu)
			from, to, sender, atSender, beyond := netip.AddrPortFrom(alice, 5000), w.echo.Addr(), w.Subscriber, w.atAlice, w.capture
			if way == "in" {
				from, to, sender, atSender, beyond = w.echo.Addr(), w.seen, w.Internet, w.capture, w.atAlice
			}
			p := netlab.Packet{Protocol: netlab.UDP, DF: true, Source: from, Destination: to, Payload: []byte(strings.Repeat("x", size))}
			beyond.Clear()
			if err := sender.Send(p); err != nil {
				t.Fatal(err)
			}
			told, err := atSender.Await(testContext(t), func(p netlab.Packet) bool { return p.Outgoing && p.Quoted != nil && p.MTU != 0 })
			if err != nil {
				t.Fatal(err)
			}
			if told.Type != icmpUnreachable || told.Code != 4 || told.MTU != mtu || told.Destination.Addr() != from.Addr() {
				t.Errorf("the sender is told type %d code %d MTU %d at %v", told.Type, told.Code, told.MTU, told.Destination)
			}
			if told.Quoted.Source != from || told.Quoted.Destination != to {
				t.Errorf("it quotes %v to %v, want %v to %v", told.Quoted.Source, told.Quoted.Destination, from, to)
			}
			if passed := beyond.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Protocol == netlab.UDP }); len(passed) > 0 {
				t.Errorf("it passed: %+v", passed[0])
			}

			p.DF = false
			if err := sender.Send(p); err != nil {
				t.Fatal(err)
			}
			isPart := func(p netlab.Packet) bool { return p.Outgoing && p.Protocol == netlab.UDP && p.Fragment }
			testenv.Eventually(t, "two fragments", func() bool { return len(beyond.Matching(isPart)) >= 2 })
			for _, part := range beyond.Matching(isPart) {
				if part.DF || way == "out" && part.Source.Addr() != eip || way == "in" && part.Destination.Addr() != alice {
					t.Errorf("a fragment is %+v", part)
				}
			}
			w.wantNoneLeft(t)
		})
	}
}

// TestFragments_NAT13 sends datagrams in fragments both ways, in every order.
func TestFragments_NAT13(t *testing.T) {
	w := newICMPTest(t)
	at := func(host *netlab.Namespace, local netip.AddrPort) func() (string, netip.AddrPort, error) {
		t.Helper()
		conn, err := host.ListenUDP(local)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		deadline, _ := testContext(t).Deadline()
		_ = conn.SetReadDeadline(deadline)
		return func() (string, netip.AddrPort, error) {
			buf := make([]byte, 1<<16)
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			return string(buf[:n]), from, err
		}
	}
	remote := netip.AddrPortFrom(w.Remotes[1], 7001)
	atRemote := at(w.Internet, remote)
	atSubscriber := at(w.Subscriber, netip.AddrPortFrom(alice, 5001))
	id := uint16(100)
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}} {
		id++
		payload := fmt.Sprint(order, strings.Repeat("fragmented", 200)) // three fragments
		err := w.Subscriber.SendFragments(netlab.Packet{
			Protocol: netlab.UDP, Source: netip.AddrPortFrom(alice, 5001), Destination: remote, Payload: []byte(payload),
		}, id, 800, order)
		if err != nil {
			t.Fatal(err)
		}
		got, from, err := atRemote()
		if err != nil || got != payload || !inBlock(blockOf(alice, nat.GateOpen, 0), from) {
			t.Fatalf("%v out: %d octets from %v: %v", order, len(got), from, err)
		}
		err = w.Internet.SendFragments(netlab.Packet{
			Protocol: netlab.UDP, Source: remote, Destination: from, Payload: []byte(payload),
		}, id, 800, order)
		if err != nil {
			t.Fatal(err)
		}
		if back, from, err := atSubscriber(); err != nil || back != payload || from != remote {
			t.Fatalf("%v in: %d octets from %v: %v", order, len(back), from, err)
		}
	}
	w.wantNoneLeft(t)
}

// TestFragmentFlood_NAT13 sends far more first fragments than there is room for, whose rest
// never comes: their memory is bounded, nothing of them leaves, and whole packets pass.
func TestFragmentFlood_NAT13(t *testing.T) {
	w := newICMPTest(t)
	const room = 256 << 10
	run(t, w.Lab, "sysctl", "-qw", "net.ipv4.ipfrag_low_thresh="+strconv.Itoa(room/2), "net.ipv4.ipfrag_high_thresh="+strconv.Itoa(room))
	w.capture.Clear()
	for sender, p := range map[*netlab.Namespace]netlab.Packet{
		w.Subscriber: {Source: netip.AddrPortFrom(alice, 5009), Destination: w.echo.Addr()},
		w.Internet:   {Source: netip.AddrPortFrom(w.Remotes[1], 5009), Destination: w.seen},
	} {
		p.Protocol, p.Payload = netlab.UDP, make([]byte, 2000)
		for id := range 3000 {
			if err := sender.SendFragments(p, uint16(id+1), 1400, []int{0}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if again := w.ask(t, 5000); again != w.seen {
		t.Errorf("the flow is seen from %v, was from %v", again, w.seen)
	}
	var used []int
	err := w.CGN.Do(func() error {
		stat, err := os.ReadFile("/proc/thread-self/net/sockstat")
		for line := range strings.Lines(string(stat)) {
			var queues, memory int
			if n, _ := fmt.Sscanf(line, "FRAG: inuse %d memory %d", &queues, &memory); n == 2 {
				used = []int{queues, memory}
			}
		}
		return err
	})
	const perFragment = 8 << 10 // the last one is admitted below the bound
	if err != nil || len(used) == 0 || used[0] == 0 || used[1] > room+perFragment {
		t.Errorf("fragments use %v (queues, octets), want some, at most %d octets: %v", used, room, err)
	}
	w.wantNoneLeft(t)
	if left := w.capture.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Fragment }); len(left) > 0 {
		t.Errorf("a part left: %+v", left[0])
	}
	if entries, err := w.CGN.Conntrack(testContext(t), alice); err != nil || slices.ContainsFunc(entries, func(e string) bool { return strings.Contains(e, "5009") }) {
		t.Errorf("parts made conntrack entries: %q %v", entries, err)
	}
}
