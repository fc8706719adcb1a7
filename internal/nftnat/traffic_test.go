package nftnat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// A wireTest is a running Kernel with both ends of its traffic in hand.
type wireTest struct {
	*netlab.Lab
	*Kernel
	echo    *netlab.Echo
	capture *netlab.Capture // on the link to the internet
}

func newWireTest(t *testing.T) wireTest {
	t.Helper()
	return newWireTestWith(t, func(*Options) {})
}

// newWireTestWith starts a Kernel with changed options.
func newWireTestWith(t *testing.T, change func(*Options)) wireTest {
	t.Helper()
	lab := newLab(t)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
	if err != nil {
		t.Fatal(err)
	}
	o := labOptions(lab)
	change(&o)
	return wireTest{lab, startKernel(t, o), echo, captureInternet(t, lab)}
}

func captureInternet(t *testing.T, lab *netlab.Lab) *netlab.Capture {
	t.Helper()
	c, err := lab.CGN.Capture(netlab.OutsideInterface)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w wireTest) flow(t *testing.T, inside netip.Addr) *netlab.Flow {
	t.Helper()
	f, err := w.OpenFlow(testContext(t), netip.AddrPortFrom(inside, 0))
	if err != nil {
		t.Fatalf("open flow of %v: %v", inside, err)
	}
	return f
}

// wantNoLeak checks that no packet with the inside address was seen outside.
func (w wireTest) wantNoLeak(t *testing.T, inside netip.Addr) {
	t.Helper()
	if err := w.capture.Settle(testContext(t), w.CGN, w.Remotes[0]); err != nil {
		t.Fatal(err)
	}
	if leaked := w.capture.Matching(func(p netlab.Packet) bool { return p.Mentions(inside) }); len(leaked) > 0 {
		t.Errorf("%d packets of %v leaked, the first is %+v", len(leaked), inside, leaked[0])
	}
	if dropped, err := w.capture.Dropped(); dropped != 0 || err != nil {
		t.Errorf("the capture lost %d packets: %v", dropped, err)
	}
}

func (w wireTest) wantConntrack(t *testing.T, inside netip.Addr, entries int) {
	t.Helper()
	got, err := w.CGN.Conntrack(testContext(t), inside)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != entries {
		t.Errorf("conntrack has %d entries of %v, want %d: %q", len(got), inside, entries, got)
	}
}

// send sends one datagram from the subscriber and does not wait for anything.
func (w wireTest) send(t *testing.T, inside netip.AddrPort) {
	t.Helper()
	conn, err := w.Subscriber.Dial(testContext(t), "udp4", inside, w.echo.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
}

// dropped waits until the counter of the drop with the comment, in a chain, is not zero: the
// packet has arrived at the CGN and went no further.
func (w wireTest) dropped(t *testing.T, chain, comment string) {
	t.Helper()
	refers := regexp.MustCompile(`counter name "(\w+)" drop comment "[^"]*` + regexp.QuoteMeta(comment))
	names := refers.FindAllStringSubmatch(run(t, w.Lab, "nft", "list", "chain", "ip", testTable, chain), -1)
	if len(names) == 0 {
		t.Fatalf("chain %s has no drop: %s", chain, comment)
	}
	testenv.Succeeds(t, func() error {
		for _, name := range names {
			if !strings.Contains(run(t, w.Lab, "nft", "list", "counter", "ip", testTable, name[1]), "packets 0 ") {
				return nil
			}
		}
		return fmt.Errorf("chain %s dropped nothing: %s", chain, comment)
	})
}

func inBlock(e nat.Entry, seen netip.AddrPort) bool {
	return seen.Addr() == e.Outside && nat.Port(seen.Port()) >= e.First && nat.Port(seen.Port()) <= e.Last
}

func TestEveryProtocolLeavesFromTheBlock_NAT02_NAT21(t *testing.T) {
	w := newWireTest(t)
	for i, inside := range []netip.Addr{alice, bob} {
		e := blockOf(inside, nat.GateOpen, i)
		apply(t, w, e)
		for _, port := range []uint16{1, 40000} {
			from := netip.AddrPortFrom(inside, port)
			for network, ask := range map[string]func(context.Context, netip.AddrPort, netip.AddrPort) (netip.AddrPort, error){
				"tcp": w.Subscriber.AskTCP, "udp": w.Subscriber.AskUDP,
			} {
				if seen, err := ask(testContext(t), from, w.echo.Addr()); err != nil || !inBlock(e, seen) {
					t.Errorf("%s of %v is seen from %v: %v, want %v", network, from, seen, err, e)
				}
			}
			ping, err := w.Ping(testContext(t), inside, port)
			if err != nil || !inBlock(e, netip.AddrPortFrom(ping.Source, ping.ID)) {
				t.Errorf("ping %d of %v is seen as %+v: %v, want %v", port, inside, ping, err, e)
			}
		}
		w.wantNoLeak(t, inside)
	}
}

func TestPacketsBeforeStart_DEL05_DEL06_I3(t *testing.T) {
	lab := newLab(t)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
	if err != nil {
		t.Fatal(err)
	}
	// A flow from before there was any table: conntrack holds it untranslated.
	run(t, lab, "nft", "add table ip before; add chain ip before c { type filter hook forward priority 0; }; add rule ip before c ct state new counter")
	w := wireTest{Lab: lab, echo: echo, capture: captureInternet(t, lab)}
	from := netip.AddrPortFrom(alice, 5000)
	w.send(t, from)
	_, err = w.capture.Await(testContext(t), func(p netlab.Packet) bool { return p.Outgoing && p.Source == from })
	if err != nil {
		t.Fatalf("the packet of before has not left: %v", err)
	}
	w.Kernel = openKernel(t, labOptions(lab)) // a running one would end the flow
	w.capture.Clear()
	t.Run("gate closed", func(t *testing.T) {
		w.send(t, from)
		w.dropped(t, chainUpstream, "no open gate")
		w.wantNoLeak(t, alice)
	})
	t.Run("gate open but flow not flushed", func(t *testing.T) {
		apply(t, w, blockOf(alice, nat.GateOpen, 0))
		w.send(t, from)
		w.dropped(t, chainLeaving, "untranslated")
		w.wantNoLeak(t, alice)
	})
	t.Run("flushed on Start", func(t *testing.T) {
		receipts, err := w.Reap(testContext(t), []netip.Addr{alice})
		if err != nil || len(receipts) != 1 || receipts[0].Deleted != 1 || receipts[0].Proof != nat.ProofTable {
			t.Errorf("receipts are %+v: %v", receipts, err)
		}
		seen, err := lab.Subscriber.AskUDP(testContext(t), from, echo.Addr())
		if err != nil || !inBlock(blockOf(alice, nat.GateOpen, 0), seen) {
			t.Errorf("the flow is seen from %v: %v", seen, err)
		}
		w.wantNoLeak(t, alice)
	})
}

func TestCutFlowIsDeadBothWays_DEL01_DEL02_DEL04_DEL07(t *testing.T) {
	for _, loose := range []string{"1", "0"} {
		t.Run("tcp_loose="+loose, func(t *testing.T) {
			w := newWireTest(t)
			run(t, w.Lab, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose="+loose)
			apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
			cut, other := w.flow(t, alice), w.flow(t, bob)
			for _, f := range []*netlab.Flow{cut, other} {
				if err := errors.Join(f.Out(testContext(t)), f.In(testContext(t))); err != nil {
					t.Fatal(err)
				}
			}
			stop := keepSending(t, cut)
			apply(t, w, nat.Entry{Inside: alice})
			receipts, err := w.Reap(testContext(t), []netip.Addr{alice})
			if err != nil || receipts[0].Deleted != 1 {
				t.Errorf("receipts are %+v: %v", receipts, err)
			}
			w.capture.Clear()
			if out, in := cut.Probe(time.Second); out || in {
				t.Errorf("the cut flow passes: out %t, in %t", out, in)
			}
			stop()
			w.wantConntrack(t, alice, 0)
			w.wantNoLeak(t, alice)
			if seen := w.capture.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Source == cut.Source() }); len(seen) > 0 {
				t.Errorf("%d packets of the cut flow left: %+v", len(seen), seen[0])
			}
			if out, in := other.Probe(5 * time.Second); !out || !in {
				t.Errorf("the neighbour's flow was hit: out %t, in %t", out, in)
			}
			if got := run(t, w.Lab, "nft", "list", "table", "ip", testTable); strings.Contains(got, alice.String()) {
				t.Errorf("an element is left: %s", got)
			}
		})
	}
}

// keepSending sends on a flow, both ways, until the returned function is called.
func keepSending(t *testing.T, f *netlab.Flow) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = f.Inside.Send()
				_, _ = f.Outside.Send()
			}
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// An inbound session has the subscriber only in the reply tuple.
func TestInboundSessionIsReapedAndCounted_DEL02(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	run(t, w.Lab, "nft", `table ip inbound {
		chain c {
			type nat hook prerouting priority dstnat
			ip daddr 198.51.100.1 udp dport 1100 dnat to 100.64.0.10:9
		}
	}`)
	conn, err := w.Internet.Dial(testContext(t), "udp4", netip.AddrPort{}, netip.MustParseAddrPort("198.51.100.1:1100"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	wantSessions(t, w, alice, 1)
	var inbound []Session
	if err := w.Sessions(testContext(t), func(s Session) error { inbound = append(inbound, s); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(inbound) != 1 || inbound[0].Direction != nat.Inbound || inbound[0].Inside != netip.AddrPortFrom(alice, 9) ||
		inbound[0].Outside != netip.MustParseAddrPort("198.51.100.1:1100") || inbound[0].Remote.Addr() != w.Remotes[0] {
		t.Errorf("sessions are %+v", inbound)
	}
	if inbound[0].ExpiresIn <= 0 || inbound[0].ExpiresIn > testTimeouts.UDP {
		t.Errorf("the session expires in %v", inbound[0].ExpiresIn)
	}
	apply(t, w, nat.Entry{Inside: alice})
	wantReaped(t, w, alice, 1)
	w.wantConntrack(t, alice, 0)
}

// TestDrainingKeepsWhatStands_DEL11 also has a flow without any answer: it is new to conntrack
// for all its life.
func TestDrainingKeepsWhatStands_DEL11(t *testing.T) {
	w := newWireTest(t)
	e := blockOf(alice, nat.GateOpen, 0)
	apply(t, w, e)
	standing := w.flow(t, alice)
	silent, err := w.Internet.ListenUDP(netip.AddrPortFrom(w.Remotes[1], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	oneWay, err := w.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(alice, 6000), netip.AddrPortFrom(w.Remotes[1], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer oneWay.Close()
	sendsOneWay := func() error {
		w.capture.Clear()
		if _, err := oneWay.Write([]byte("?")); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
		defer cancel()
		_, err := w.capture.Await(ctx, func(p netlab.Packet) bool {
			return p.Outgoing && p.Protocol == netlab.UDP && p.Destination.Addr() == w.Remotes[1] && inBlock(e, p.Source)
		})
		return err
	}
	if err := sendsOneWay(); err != nil {
		t.Fatal(err)
	}

	apply(t, w, blockOf(alice, nat.GateDraining, 0))
	if out, in := standing.Probe(5 * time.Second); !out || !in {
		t.Errorf("the standing flow does not pass: out %t, in %t", out, in)
	}
	if err := sendsOneWay(); err != nil {
		t.Errorf("the one-way flow does not pass: %v", err)
	}
	w.send(t, netip.AddrPortFrom(alice, 6001))
	w.dropped(t, chainDraining, "new session while draining")
	w.wantConntrack(t, alice, 2)

	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	if _, err := w.Subscriber.AskTCP(testContext(t), netip.AddrPortFrom(alice, 0), w.echo.Addr()); err != nil {
		t.Errorf("after draining ended: %v", err)
	}
	w.wantNoLeak(t, alice)
}

func TestOtherProtocolsAreDropped_NAT26(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	for _, protocol := range []int{unix.IPPROTO_GRE, unix.IPPROTO_ESP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_IPV6} {
		sendRaw(t, w, protocol)
	}
	w.dropped(t, chainUpstream, "cannot share an address")
	w.wantNoLeak(t, alice)
	seen := w.capture.Matching(func(p netlab.Packet) bool {
		return p.Outgoing && p.Protocol != netlab.UDP && p.Protocol != netlab.TCP && p.Protocol != netlab.ICMP
	})
	if len(seen) > 0 {
		t.Errorf("%d packets left: %+v", len(seen), seen)
	}
}

func sendRaw(t *testing.T, w wireTest, protocol int) {
	t.Helper()
	err := w.Subscriber.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: alice.As4()}); err != nil {
			return err
		}
		return unix.Sendto(fd, make([]byte, 64), 0, &unix.SockaddrInet4{Addr: w.Remotes[0].As4()})
	})
	if err != nil {
		t.Fatalf("send protocol %d: %v", protocol, err)
	}
}

// TestUnsolicitedPacketsGetNoAnswer_NAT16 probes the pool: at a port in a block, and at a port
// of no block.
func TestUnsolicitedPacketsGetNoAnswer_NAT16(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	w.flow(t, alice)
	w.capture.Clear()
	for _, port := range []uint16{1030, 60000} {
		ctx, cancel := context.WithTimeout(testContext(t), 500*time.Millisecond)
		conn, err := w.Internet.Dial(ctx, "tcp4", netip.AddrPort{}, netip.AddrPortFrom(eip, port))
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(fmt.Sprint(err), "timeout") {
			t.Errorf("SYN to port %d: %v, want silence", port, err)
		}
		cancel()
	}
	if err := w.capture.Settle(testContext(t), w.CGN, w.Remotes[0]); err != nil {
		t.Fatal(err)
	}
	answers := w.capture.Matching(func(p netlab.Packet) bool {
		return p.Outgoing && (p.Protocol == netlab.ICMP || p.Flags&netlab.RST != 0) && p.Source.Addr() != alice
	})
	if len(answers) > 0 {
		t.Errorf("answers: %+v", answers)
	}
}

// TestFullBlockDropsNewFlows_NAT32 fills a block of four ports.
func TestFullBlockDropsNewFlows_NAT32(t *testing.T) {
	w := newWireTest(t)
	e := nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 1027}}
	apply(t, w, e)
	for port := uint16(5000); port < 5004; port++ {
		seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, port), w.echo.Addr())
		if err != nil || !inBlock(e, seen) {
			t.Fatalf("flow of port %d is seen from %v: %v", port, seen, err)
		}
	}
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	if seen, err := w.Subscriber.AskUDP(ctx, netip.AddrPortFrom(alice, 5004), w.echo.Addr()); err == nil {
		t.Errorf("a fifth flow is seen from %v", seen)
	}
	for port := uint16(5000); port < 5004; port++ {
		if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, port), w.echo.Addr()); err != nil {
			t.Errorf("standing flow of port %d: %v", port, err)
		}
	}
	w.wantNoLeak(t, alice)
}

// TestInsideToInsideHasTwoGates sends from one subscriber to another one, which is reached
// by a route behind the CGN's inside interface, so that the packets are forwarded.
func TestInsideToInsideHasTwoGates(t *testing.T) {
	w := newWireTest(t)
	run(t, w.Lab, "ip", "route", "add", "10.9.9.9/32", "dev", netlab.InsideInterface)
	run(t, w.Lab, "ip", "neigh", "add", "10.9.9.9", "lladdr", "02:00:00:00:00:09", "dev", netlab.InsideInterface)
	target := netip.MustParseAddrPort("10.9.9.9:9")
	send := func() {
		conn, err := w.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(alice, 0), target)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	send()
	w.dropped(t, chainDownstream, "no open gate")
	w.wantConntrack(t, target.Addr(), 0)
	apply(t, w, blockOf(target.Addr(), nat.GateOpen, 1))
	send()
	testenv.Succeeds(t, func() error {
		entries, err := w.CGN.Conntrack(testContext(t), target.Addr())
		if err == nil && len(entries) == 0 {
			err = errors.New("the packet does not pass two open gates")
		}
		return err
	})
	apply(t, w, nat.Entry{Inside: alice})
	send()
	w.dropped(t, chainUpstream, "no open gate")
}

func TestUnlistedInterfaceGetsNothing_I3(t *testing.T) {
	w := newWireTestWith(t, func(o *Options) { o.OutsideInterfaces = []string{"elsewhere0"} })
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	w.send(t, netip.AddrPortFrom(alice, 5000))
	w.dropped(t, chainFromInside, "neither inside nor outside")
	w.wantNoLeak(t, alice)
}
