package nftnat

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// dropTest counts the packets on all links of a CGN, beside its counters of drops.
type dropTest struct {
	wireTest
	other   *netlab.Namespace
	links   []*netlab.Capture
	machine *net.UDPConn // packets to the machine itself end here
	port    uint16       // of the last flow
}

var (
	carol = netip.MustParseAddr("100.64.0.12") // draining
	dave  = netip.MustParseAddr("100.64.0.13") // a gate without a block
	erin  = netip.MustParseAddr("100.64.0.14") // a block of one port
	frank = netip.MustParseAddr("100.64.0.15") // as many sessions as one may have, in mappings
	grace = netip.MustParseAddr("100.64.0.16") // not online
	heidi = netip.MustParseAddr("100.64.0.17") // as many sessions as one may have

	unusedPool = netip.MustParseAddr("198.51.100.9")
	lost       = netip.MustParseAddr("100.64.9.1") // an inside address with a route to the third network
)

// newDropTest is a CGN with subscribers in every state of a gate, mappings of others to some of
// them, and a third network.
func newDropTest(t *testing.T) *dropTest {
	t.Helper()
	testenv.Require(t, testenv.Root|testenv.Nft|testenv.Conntrack)
	lab, err := netlab.New(netlab.Options{Subscribers: []netip.Addr{alice, bob, carol, dave, erin, frank, grace, heidi}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	w := &dropTest{wireTest: wireTest{Lab: lab}}
	for _, p := range []netip.Prefix{netlab.InsideGateway.Masked(), third.gateway.Masked()} {
		if err := lab.Internet.AddRoute(netlab.Route{Destination: p, Gateway: netlab.OutsideGateway.Addr()}); err != nil {
			t.Fatal(err)
		}
	}
	o := labOptions(lab)
	o.MaxSessions, o.MaxUngated = 2, 1
	w.Kernel = startKernel(t, o)
	w.wireTest, w.other, _ = w.withThird(t)
	run(t, lab, "ip", "route", "add", "100.64.9.0/24", "via", third.host.Addr().String())
	run(t, lab, "nft", fmt.Sprintf(`table ip mappings {
		chain c {
			type nat hook prerouting priority dstnat
			ip daddr 198.51.100.2 dnat to ip daddr . udp dport map { 198.51.100.2 . 2000 : %v, 198.51.100.2 . 2001 : %v, 198.51.100.2 . 2002 : %v }
		}
		chain raw {
			type filter hook prerouting priority raw
			ip saddr %v udp dport 4444 notrack
		}
	}`, carol, grace, frank, alice))
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1), blockOf(carol, nat.GateDraining, 2), blockOf(frank, nat.GateOpen, 4), blockOf(heidi, nat.GateOpen, 5),
		nat.Entry{Inside: erin, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 6000, Last: 6000}})
	run(t, lab, "nft", fmt.Sprintf("add element ip %s gate { %v : return }", testTable, dave))
	for _, link := range []string{netlab.InsideInterface, netlab.OutsideInterface, "m0"} {
		c, err := lab.CGN.Capture(link)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		w.links = append(w.links, c)
	}
	if w.machine, err = lab.CGN.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), 5555)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.machine.Close() })
	return w
}

// flow sends a datagram of a new flow.
func (w *dropTest) flow(from *netlab.Namespace, source, target netip.Addr, targetPort uint16) error {
	w.port++
	return from.Send(netlab.Packet{
		Protocol: netlab.UDP, Source: netip.AddrPortFrom(source, 20000+w.port), Destination: netip.AddrPortFrom(target, targetPort), Payload: []byte("flow"),
	})
}

// counts reads the drops that are not zero.
func (w *dropTest) counts(t *testing.T) map[nat.Drop]uint64 {
	t.Helper()
	list, err := w.Drops(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[nat.Drop]uint64{}
	for _, c := range list {
		if c.Packets > 0 {
			counts[c.Drop] = c.Packets
		}
	}
	return counts
}

func sumOf(counts map[nat.Drop]uint64) (sum uint64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// since returns the differences of counts to earlier ones.
func since(before, now map[nat.Drop]uint64) map[nat.Drop]uint64 {
	more := map[nat.Drop]uint64{}
	for d, n := range now {
		if n != before[d] {
			more[d] = n - before[d]
		}
	}
	return more
}

// settle waits until all links are captured up to now: it sends a datagram over each, always of
// one flow, since the machine's own address may have no more sessions than a subscriber. These
// packets, to the port discard, are not counted.
func (w *dropTest) settle(t *testing.T) {
	t.Helper()
	for i, ends := range [][2]netip.Addr{
		{netlab.InsideGateway.Addr(), alice}, {netlab.OutsideGateway.Addr(), w.Remotes[0]}, {third.gateway.Addr(), third.host.Addr()},
	} {
		mark := rand.Text()
		err := w.CGN.Send(netlab.Packet{
			Protocol: netlab.UDP, Source: netip.AddrPortFrom(ends[0], discard), Destination: netip.AddrPortFrom(ends[1], discard), Payload: []byte(mark),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.links[i].Await(testContext(t), func(p netlab.Packet) bool { return string(p.Payload) == mark }); err != nil {
			t.Fatal(err)
		}
		if lost, err := w.links[i].Dropped(); lost != 0 || err != nil {
			t.Fatalf("capture %d lost %d packets: %v", i, lost, err)
		}
	}
}

const discard = 9 // RFC 863

// missing returns the number of packets that came in by any link, and neither left by one nor
// were delivered to the machine.
func (w *dropTest) missing(t *testing.T) int {
	t.Helper()
	w.settle(t)
	missing := 0
	for _, c := range w.links {
		for _, p := range c.Packets() {
			switch {
			case isSettling(p):
			case p.Outgoing:
				missing--
			default:
				missing++
			}
		}
	}
	for buf := make([]byte, 64); ; {
		if err := w.machine.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, _, err := w.machine.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return missing
		}
		if err != nil {
			t.Fatal(err)
		}
		missing--
	}
}

func isSettling(p netlab.Packet) bool {
	return p.Protocol == netlab.UDP && p.Destination.Port() == discard || p.Quoted != nil && p.Quoted.Destination.Port() == discard
}

// TestEachDropIsCounted_NAT39 has one stimulus for each reason and direction. Each is counted
// for that reason alone, and the counts are the packets that came in by a link less those that
// left by one.
func TestEachDropIsCounted_NAT39(t *testing.T) {
	w := newDropTest(t)
	host, internet, machine := w.Subscriber, w.Internet, netlab.InsideGateway.Addr()
	outside := w.Remotes[0]
	const n = 3 // packets of a stimulus
	repeat := func(send func() error) func(*testing.T) {
		return func(t *testing.T) {
			for range n {
				if err := send(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	flow := func(from *netlab.Namespace, source, target netip.Addr, port uint16) func(*testing.T) {
		return repeat(func() error { return w.flow(from, source, target, port) })
	}
	for _, tt := range []struct {
		drop     nat.Drop
		stimulus func(*testing.T)
	}{
		{nat.Drop{Reason: nat.DropNoGate, Direction: nat.DropOut}, flow(host, grace, outside, 7)},
		{nat.Drop{Reason: nat.DropNoGate, Direction: nat.DropIn}, flow(internet, outside, netip.MustParseAddr("198.51.100.2"), 2001)},
		{nat.Drop{Reason: nat.DropDraining, Direction: nat.DropOut}, flow(host, carol, outside, 7)},
		{nat.Drop{Reason: nat.DropDraining, Direction: nat.DropIn}, flow(internet, outside, netip.MustParseAddr("198.51.100.2"), 2000)},
		{nat.Drop{Reason: nat.DropNoBlock, Direction: nat.DropOut}, flow(host, dave, outside, 7)},
		{nat.Drop{Reason: nat.DropProtocol, Direction: nat.DropOut}, repeat(func() error {
			return host.Send(netlab.Packet{Protocol: netlab.GRE, Source: netip.AddrPortFrom(alice, 0), Destination: netip.AddrPortFrom(outside, 0)})
		})},
		{nat.Drop{Reason: nat.DropObsoleteICMP, Direction: nat.DropOut}, repeat(func() error {
			return host.Send(netlab.Packet{Protocol: netlab.ICMP, Type: icmpInformation, Source: netip.AddrPortFrom(alice, 0), Destination: netip.AddrPortFrom(outside, 0)})
		})},
		{nat.Drop{Reason: nat.DropInterface, Direction: nat.DropOut}, flow(host, alice, third.host.Addr(), 7)},
		{nat.Drop{Reason: nat.DropInterface, Direction: nat.DropIn}, flow(internet, outside, third.host.Addr(), 7)},
		{nat.Drop{Reason: nat.DropMisrouted, Direction: nat.DropIn}, flow(internet, outside, lost, 7)},
		{nat.Drop{Reason: nat.DropFiltered, Direction: nat.DropIn}, flow(internet, outside, alice, 7)},
		{nat.Drop{Reason: nat.DropNoMapping, Direction: nat.DropIn}, flow(internet, outside, unusedPool, 7)},
		{nat.Drop{Reason: nat.DropNoMapping, Direction: nat.DropOut}, flow(host, alice, unusedPool, 7)},
		{nat.Drop{Reason: nat.DropInsideSource, Direction: nat.DropIn}, flow(w.other, alice, outside, 7)},
		{nat.Drop{Reason: nat.DropInsideSource, Direction: nat.DropLocal}, flow(internet, alice, netlab.OutsideGateway.Addr(), 5555)},
		{nat.Drop{Reason: nat.DropOutsideSource, Direction: nat.DropIn}, flow(w.other, unusedPool, outside, 7)},
		{nat.Drop{Reason: nat.DropUntranslated, Direction: nat.DropOut}, flow(host, alice, outside, 4444)},
		{nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropOut}, flow(host, heidi, outside, 7)},
		{nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropLocal}, flow(host, heidi, machine, 5555)},
		{nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropIn}, flow(internet, outside, netip.MustParseAddr("198.51.100.2"), 2002)},
		{nat.Drop{Reason: nat.DropBlockFull, Direction: nat.DropOut}, flow(host, erin, outside, 7)},
	} {
		t.Run(fmt.Sprintf("%s %s", tt.drop.Reason, tt.drop.Direction), func(t *testing.T) {
			w.fill(t, tt.drop)
			before := w.counts(t)
			w.settle(t)
			for _, c := range w.links {
				c.Clear()
			}
			tt.stimulus(t)
			var more map[nat.Drop]uint64
			testenv.Succeeds(t, func() error {
				if more = since(before, w.counts(t)); sumOf(more) < n {
					return fmt.Errorf("counted are %v", more)
				}
				return nil
			})
			if len(more) != 1 || more[tt.drop] != n {
				t.Errorf("counted are %v, want %d of %v", more, n, tt.drop)
			}
			if got := w.missing(t); got != n {
				t.Errorf("%d packets came in and did not leave, want %d", got, n)
			}
		})
	}

	t.Run("rates", func(t *testing.T) {
		before := w.counts(t)
		for _, c := range w.links {
			c.Clear()
		}
		for range 30 { // more than one address may begin at once, and of those more than all may
			if err := errors.Join(w.flow(host, grace, machine, 5555), w.flow(internet, outside, netlab.OutsideGateway.Addr(), 5555)); err != nil {
				t.Fatal(err)
			}
		}
		missing := w.missing(t)
		more := since(before, w.counts(t))
		if int(sumOf(more)) != missing || missing < 40 {
			t.Errorf("counted are %v, %d packets came in and neither left nor were delivered, of 60", more, missing)
		}
		for _, reason := range []nat.DropReason{nat.DropAddressRate, nat.DropOfflineRate, nat.DropOutsideRate} {
			if more[nat.Drop{Reason: reason, Direction: nat.DropLocal}] == 0 {
				t.Errorf("counted are %v, none of them for %s", more, reason)
			}
		}
	})

	t.Run("established flows", func(t *testing.T) {
		f := w.wireTest.flow(t, bob)
		before := w.counts(t)
		for range 100 {
			if err := errors.Join(f.Out(testContext(t)), f.In(testContext(t))); err != nil {
				t.Fatal(err)
			}
		}
		if more := since(before, w.counts(t)); len(more) > 0 {
			t.Errorf("an established flow is counted: %v", more)
		}
	})
}

// fill begins as many sessions as a stimulus needs to be beyond a limit.
func (w *dropTest) fill(t *testing.T, d nat.Drop) {
	t.Helper()
	var set string
	var begin func() error
	switch {
	case d == nat.Drop{Reason: nat.DropBlockFull, Direction: nat.DropOut}:
		if err := w.flow(w.Subscriber, erin, w.Remotes[0], 7); err != nil {
			t.Fatal(err)
		}
		wantSessions(t, w, erin, 1)
		return
	case d == nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropOut}:
		set, begin = setFull, func() error { return w.flow(w.Subscriber, heidi, w.Remotes[0], 7) }
	case d == nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropIn}:
		set, begin = setFullMapped, func() error {
			return w.flow(w.Internet, w.Remotes[0], netip.MustParseAddr("198.51.100.2"), 2002)
		}
	default:
		return
	}
	testenv.Succeeds(t, func() error {
		if strings.Contains(run(t, w.Lab, "nft", "list", "set", "ip", testTable, set), "elements") {
			return nil
		}
		return errors.Join(errors.New("nobody is at the limit"), begin())
	})
}

// TestDropCountsSurvive_NAT39_I7: the counts outlive a change of the configuration, a restart,
// and a table that others delete, and a reset by others does not make them fall.
func TestDropCountsSurvive_NAT39_I7(t *testing.T) {
	lab := newLab(t)
	noGate := nat.Drop{Reason: nat.DropNoGate, Direction: nat.DropOut}
	packets := func(k *Kernel) uint64 {
		list, err := k.Drops(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return list[slices.IndexFunc(list, func(c nat.DropCount) bool { return c.Drop == noGate })].Packets
	}
	send := func() {
		err := lab.Subscriber.Send(netlab.Packet{
			Protocol: netlab.UDP, Source: netip.AddrPortFrom(alice, 5000), Destination: netip.AddrPortFrom(lab.Remotes[0], 7),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	counted := func(k *Kernel, want uint64) {
		t.Helper()
		testenv.Succeeds(t, func() error {
			if got := packets(k); got != want {
				return fmt.Errorf("%d packets are counted, want %d", got, want)
			}
			return nil
		})
	}
	k, err := dialAndStart(testContext(t), labOptions(lab))
	if err != nil {
		t.Fatal(err)
	}
	send()
	counted(k, 1)
	short := testTimeouts
	short.UDP = 100 * time.Second
	if err := k.SetTimeouts(testContext(t), short); err != nil {
		t.Fatal(err)
	}
	counted(k, 1)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	send() // while no daemon runs

	k = startKernel(t, labOptions(lab))
	counted(k, 2)
	run(t, lab, "nft", "delete", "table", "ip", testTable)
	testenv.Succeeds(t, func() error {
		out, err := lab.CGN.Output(testContext(t), "nft", "list", "counter", "ip", testTable, counterName(noGate))
		if err == nil && !strings.Contains(string(out), "packets 2 ") {
			err = errors.New(string(out))
		}
		return err
	})
	send()
	counted(k, 3)
	run(t, lab, "nft", "reset", "counters", "table", "ip", testTable)
	counted(k, 3)
	send()
	counted(k, 4)
}

// TestBarrierDropsAreCounted: packets that only the barrier kept back are counted, after a
// restart too.
func TestBarrierDropsAreCounted(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab)) // a running one would make the table anew
	run(t, lab, "nft", "delete", "table", "ip", testTable)
	for range 3 {
		err := lab.Subscriber.Send(netlab.Packet{
			Protocol: netlab.UDP, Source: netip.AddrPortFrom(alice, 5000), Destination: netip.AddrPortFrom(lab.Remotes[0], 7),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	counted := func(k *Kernel) {
		t.Helper()
		testenv.Succeeds(t, func() error {
			list, err := k.Drops(testContext(t))
			if last := list[len(list)-1]; err == nil && (last.Reason != nat.DropBarrier || last.Packets != 3) {
				err = fmt.Errorf("counted are %+v", last)
			}
			return err
		})
	}
	counted(k)
	counted(k)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	counted(openKernel(t, labOptions(lab)))
}
