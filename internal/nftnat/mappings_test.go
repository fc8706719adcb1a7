package nftnat

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
	"golang.org/x/sys/unix"
)

// within is the time in which a datagram that is expected has to arrive, and silence the time
// in which one that is not expected would have arrived.
const within, silence = 5 * time.Second, 200 * time.Millisecond

// fullCone switches the mappings of the pool on, with endpoint-independent filtering.
func fullCone(o *Options) {
	o.Mappings = Mappings{EndpointIndependent: []netip.Prefix{pool}, Open: []netip.Prefix{pool}, Most: 10_000}
}

// strict switches them on with endpoint-independent filtering, and no port overloading.
func strict(o *Options) {
	fullCone(o)
	o.Mappings.Strict = o.Mappings.Open
}

// strictRestricted switches them on with address-and-port-dependent filtering, and no port
// overloading.
func strictRestricted(o *Options) {
	strict(o)
	o.Mappings.Open, o.Mappings.Inside = nil, o.InsidePrefixes
}

// socket opens a UDP socket of a subscriber.
func (w wireTest) socket(t testing.TB, inside netip.Addr, port uint16) *net.UDPConn {
	t.Helper()
	return udpSocket(t, w.Subscriber.ListenUDP, netip.AddrPortFrom(inside, port))
}

// host opens a UDP socket of a host in the internet.
func (w wireTest) host(t testing.TB, i int, port uint16) *net.UDPConn {
	t.Helper()
	return udpSocket(t, w.Internet.ListenUDP, netip.AddrPortFrom(w.Remotes[i], port))
}

func udpSocket(t testing.TB, listen func(netip.AddrPort) (*net.UDPConn, error), at netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := listen(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func portOf(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// errSilent: no datagram arrived.
var errSilent = errors.New("nothing arrives")

// passes sends a datagram to an address, and returns the source that the receiver sees.
func passes(from *net.UDPConn, to netip.AddrPort, at *net.UDPConn, wait time.Duration) (source netip.AddrPort, err error) {
	text := fmt.Appendf(nil, "%v %v", time.Now().UnixNano(), to)
	if _, err := from.WriteToUDPAddrPort(text, to); err != nil {
		return netip.AddrPort{}, err
	}
	if err := at.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return netip.AddrPort{}, err
	}
	for buf := make([]byte, 100); ; {
		n, source, err := at.ReadFromUDPAddrPort(buf)
		if err != nil {
			return netip.AddrPort{}, errSilent
		}
		if string(buf[:n]) == string(text) {
			return netip.AddrPortFrom(source.Addr().Unmap(), source.Port()), nil
		}
	}
}

// seenAs sends a datagram until a host gets it, and returns the source that it sees. Where
// mappings are strict, the first of a new endpoint may meet a port that another one has.
func seenAs(t testing.TB, from, host *net.UDPConn) netip.AddrPort {
	t.Helper()
	for range 100 {
		if source, err := passes(from, portOf(host), host, silence); err == nil {
			return source
		}
	}
	t.Fatalf("no datagram of %v arrives at %v", portOf(from), portOf(host))
	return netip.AddrPort{}
}

func wantPass(t testing.TB, from *net.UDPConn, to netip.AddrPort, at *net.UDPConn, source netip.AddrPort) {
	t.Helper()
	if got, err := passes(from, to, at, within); err != nil || got != source {
		t.Errorf("%v to %v: seen from %v, %v; want it from %v", portOf(from), to, got, err, source)
	}
}

func wantSilence(t testing.TB, from *net.UDPConn, to netip.AddrPort, at *net.UDPConn) {
	t.Helper()
	if got, err := passes(from, to, at, silence); err == nil {
		t.Errorf("%v to %v arrives, seen from %v", portOf(from), to, got)
	}
}

// learned counts the elements of a learned set that name an address.
func (w wireTest) learned(t testing.TB, set string, a netip.Addr) int {
	t.Helper()
	kind := "set"
	if set == mapBIB || set == mapEIF {
		kind = "map"
	}
	return strings.Count(run(t, w.Lab, "nft", "list", kind, "ip", testTable, set), a.String()+" . ")
}

func (w wireTest) learnedOf(t testing.TB, a netip.Addr) (all int) {
	t.Helper()
	for _, set := range learnedSets {
		all += w.learned(t, set, a)
	}
	return all
}

func TestFullCone_NAT01_NAT07_NAT20(t *testing.T) {
	w := newWireTestWith(t, strict)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	s, a, b, third := w.socket(t, alice, 5000), w.host(t, 0, 9), w.host(t, 1, 9), w.host(t, 1, 10)
	seen := seenAs(t, s, a)
	if other := seenAs(t, s, b); other != seen {
		t.Errorf("seen from %v and %v", seen, other)
	}
	wantPass(t, third, seen, s, portOf(third))
	wantPass(t, s, portOf(third), third, seen) // back
	wantSilence(t, third, netip.AddrPortFrom(seen.Addr(), seen.Port()^1), s)

	port, seenTCP := w.serveTCP(t, alice)
	connects(t, w.Internet, netip.AddrPort{}, seenTCP, port)
}

// serveTCP maps a TCP port of a subscriber by a connection to the internet, and listens there.
func (w wireTest) serveTCP(t *testing.T, inside netip.Addr) (listener net.Listener, seen netip.AddrPort) {
	t.Helper()
	at := netip.AddrPortFrom(inside, 6000)
	err := w.Subscriber.Do(func() (err error) {
		l := net.ListenConfig{Control: reusePort}
		if listener, err = l.Listen(testContext(t), "tcp4", at.String()); err != nil {
			return err
		}
		d := net.Dialer{Control: reusePort, LocalAddr: net.TCPAddrFromAddrPort(at)}
		conn, err := d.DialContext(testContext(t), "tcp4", w.echo.Addr().String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	entries, err := w.CGN.Conntrack(testContext(t), inside)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var port uint16
		if _, reply, ok := strings.Cut(e, "sport=7000 dport="); ok && strings.Contains(e, " tcp ") {
			if _, err := fmt.Sscan(strings.Fields(reply)[0], &port); err != nil {
				t.Fatal(err)
			}
			return listener, netip.AddrPortFrom(eip, port)
		}
	}
	t.Fatalf("no connection of %v: %q", inside, entries)
	return nil, netip.AddrPort{}
}

// reusePort lets a connection leave from a port where a socket listens.
func reusePort(_, _ string, c syscall.RawConn) (err error) {
	errControl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, errControl)
}

// connects opens a connection, and returns the source that the listener sees.
func connects(t *testing.T, from *netlab.Namespace, local, to netip.AddrPort, at net.Listener) netip.AddrPort {
	t.Helper()
	conn, err := from.Dial(testContext(t), "tcp4", local, to)
	if err != nil {
		t.Fatalf("nobody connects to %v: %v", to, err)
	}
	defer conn.Close()
	accepted, err := at.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	return accepted.RemoteAddr().(*net.TCPAddr).AddrPort()
}

func TestFiltering_NAT07(t *testing.T) {
	w := newWireTestWith(t, strictRestricted)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	s, a, b, third := w.socket(t, alice, 5000), w.host(t, 0, 9), w.host(t, 1, 9), w.host(t, 1, 10)
	seen := seenAs(t, s, a)
	if other := seenAs(t, s, b); other != seen {
		t.Errorf("seen from %v and %v", seen, other)
	}
	wantSilence(t, third, seen, s)
	wantPass(t, b, seen, s, portOf(b))
}

// TestPoisonedConntrack_NAT01 leaves conntrack with entries that mislead its own choice of a
// port: of flows that others began, unanswered ones, and none at all.
func TestPoisonedConntrack_NAT01(t *testing.T) {
	w := newWireTestWith(t, strict)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	hosts := []*net.UDPConn{w.host(t, 0, 9), w.host(t, 1, 9), w.host(t, 1, 10), w.host(t, 0, 11)}
	for port := uint16(5000); port < 5020; port++ {
		s := w.socket(t, alice, port)
		seen := seenAs(t, s, hosts[0])
		wantPass(t, hosts[1], seen, s, portOf(hosts[1])) // inbound, unanswered
		run(t, w.Lab, "conntrack", "-D", "-s", alice.String())
		if other := seenAs(t, s, hosts[2]); other != seen {
			t.Errorf("with an inbound entry left: seen from %v and %v", seen, other)
		}
		run(t, w.Lab, "conntrack", "-F")
		if other := seenAs(t, s, hosts[3]); other != seen {
			t.Errorf("with no entry left: seen from %v and %v", seen, other)
		}
		wantPass(t, hosts[2], seen, s, portOf(hosts[2]))
	}
}

// TestNoOverloading_NAT03 has more endpoints than ports: each port belongs to one of them.
func TestNoOverloading_NAT03(t *testing.T) {
	w := newWireTestWith(t, strict)
	apply(t, w, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 1027}})
	a, b, third := w.host(t, 0, 9), w.host(t, 1, 9), w.host(t, 1, 10)
	owners := map[netip.AddrPort]*net.UDPConn{}
	var refused []*net.UDPConn
	for port := uint16(5000); port < 5012; port++ {
		s := w.socket(t, alice, port)
		if len(owners) == 4 {
			refused = append(refused, s)
			continue
		}
		seen := seenAs(t, s, a)
		if owners[seen] != nil {
			t.Fatalf("%v and %v are seen from %v", portOf(owners[seen]), portOf(s), seen)
		}
		owners[seen] = s
	}
	for _, s := range refused {
		wantSilence(t, s, portOf(b), b)
	}
	for seen, s := range owners {
		wantPass(t, s, portOf(b), b, seen)
		wantPass(t, third, seen, s, portOf(third))
	}
	w.dropped(t, chainLearn+"_udp_own", "port of another mapping")
}

func TestHairpin_NAT09_NAT20_DEL02(t *testing.T) {
	w := newWireTestWith(t, strict)
	other := blockOf(bob, nat.GateOpen, 1)
	far := nat.Entry{Inside: netip.MustParseAddr("100.64.0.12"), Gate: nat.GateOpen, Block: nat.Block{Outside: eip.Next(), First: 1024, Last: 1535}}
	apply(t, w, blockOf(alice, nat.GateOpen, 0), other, far)
	if err := w.AddSubscriber(far.Inside); err != nil {
		t.Fatal(err)
	}
	a := w.host(t, 0, 9)
	s, mine := w.socket(t, alice, 5000), w.socket(t, alice, 5001)
	seen := seenAs(t, s, a)
	for name, peer := range map[string]*net.UDPConn{
		"same outside address": w.socket(t, bob, 5000), "another outside address": w.socket(t, far.Inside, 5000), "itself": mine,
	} {
		peerSeen := seenAs(t, peer, a)
		t.Run(name, func(t *testing.T) {
			wantPass(t, s, peerSeen, peer, seen)
			wantPass(t, peer, seen, s, peerSeen)
		})
	}
	t.Run("TCP", func(t *testing.T) {
		listener, to := w.serveTCP(t, bob)
		if source := connects(t, w.Subscriber, netip.AddrPortFrom(alice, 0), to, listener); !inBlock(blockOf(alice, nat.GateOpen, 0), source) {
			t.Errorf("a neighbour's connection is seen from %v", source)
		}
	})
	t.Run("reaped", func(t *testing.T) {
		apply(t, w, nat.Entry{Inside: alice})
		if _, err := w.Reap(testContext(t), []netip.Addr{alice}); err != nil {
			t.Fatal(err)
		}
		w.wantConntrack(t, alice, 0)
		w.wantNoneLearned(t, alice, seen)
	})
	w.wantNoLeak(t, alice)
}

// TestHairpinnedError_NAT25: the ICMP error of a neighbour's closed port reaches the sender, from
// the neighbour's outside address.
func TestHairpinnedError_NAT25(t *testing.T) {
	t.Run("full cone", func(t *testing.T) { hairpinnedError(t, strict) })
	t.Run("restricted", func(t *testing.T) { hairpinnedError(t, strictRestricted) })
}

func hairpinnedError(t *testing.T, options func(*Options)) {
	w := newWireTestWith(t, options)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	peer, sender, host := w.socket(t, bob, 5000), w.socket(t, alice, 5000), w.host(t, 0, 9)
	seen, senderSeen := seenAs(t, peer, host), seenAs(t, sender, host)
	if w.options.Mappings.filters() {
		wantSilence(t, peer, senderSeen, sender) // now the sender may come in
	}
	_, _ = peer.Close(), sender.Close()
	conn, err := w.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(alice, 5000), seen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	testenv.Succeeds(t, func() error {
		if _, err := conn.Write([]byte("?")); errors.Is(err, unix.ECONNREFUSED) {
			return nil
		}
		_ = conn.SetReadDeadline(time.Now().Add(silence))
		if _, err := conn.Read(make([]byte, 9)); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("no ICMP error comes back: %w", err)
		}
		return nil
	})
	if n := w.learned(t, mapBIB, bob); n != 1 { // the error ends no mapping
		t.Errorf("%d mappings of the neighbour, want 1", n)
	}
}

// wantNoneLearned checks that no learned element names the address, nor one of the endpoints.
func (w wireTest) wantNoneLearned(t *testing.T, inside netip.Addr, endpoints ...netip.AddrPort) {
	t.Helper()
	if n := w.learnedOf(t, inside); n > 0 {
		t.Errorf("%d learned elements of %v are left", n, inside)
	}
	all := run(t, w.Lab, "nft", "list", "table", "ip", testTable)
	for _, e := range endpoints {
		if text := fmt.Sprintf("%v . %d ", e.Addr(), e.Port()); strings.Contains(all, text) {
			t.Errorf("an element of %v is left", e)
		}
	}
}

// cutter returns the Kernel that cuts off: that of the test, or one that starts behind it.
func (w wireTest) cutter(t *testing.T, from string) *Kernel {
	t.Helper()
	if from != "restarted daemon" {
		return w.Kernel
	}
	k := openKernel(t, w.options)
	if err := k.Learn(testContext(t), []netip.Addr{alice, bob}); err != nil {
		t.Fatal(err)
	}
	return k
}

// TestMappingsGoWithTheGate_DEL02_DEL03_NAT07: at the cut nobody reaches the subscriber any more. Reap
// deletes and counts its mappings, and not those of others.
func TestMappingsGoWithTheGate_DEL02_DEL03_NAT07(t *testing.T) {
	for _, from := range []string{"daemon", "restarted daemon"} {
		t.Run(from, func(t *testing.T) {
			w := newWireTestWith(t, strict)
			apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
			host, third := w.host(t, 0, 9), w.host(t, 1, 10)
			var sockets []*net.UDPConn
			var seen []netip.AddrPort
			for port := uint16(5000); port < 5010; port++ {
				sockets = append(sockets, w.socket(t, alice, port))
				seen = append(seen, seenAs(t, sockets[len(sockets)-1], host))
			}
			other := w.socket(t, bob, 5000)
			otherSeen := seenAs(t, other, host)
			k := w.cutter(t, from)
			apply(t, k, nat.Entry{Inside: alice})
			for i, s := range sockets {
				wantSilence(t, third, seen[i], s)
			}
			elements := w.learnedOf(t, alice) + w.learned(t, setTaken, eip) - 1
			proofs, err := k.Reap(testContext(t), []netip.Addr{alice})
			if err != nil || len(proofs) != 1 || proofs[0].Elements < 4*len(sockets) || proofs[0].Elements > elements {
				t.Errorf("receipts are %+v, %v; want %d elements", proofs, err, elements)
			}
			w.wantNoneLearned(t, alice, seen...)
			apply(t, k, blockOf(alice, nat.GateOpen, 2))
			for i, s := range sockets {
				wantSilence(t, third, seen[i], s)
				if again := seenAs(t, s, host); !inBlock(blockOf(alice, nat.GateOpen, 2), again) {
					t.Errorf("in its new block it is seen from %v", again)
				}
			}
			wantPass(t, third, otherSeen, other, portOf(third))
		})
	}
}

// TestExpiringMappingsGo_DEL03_NAT07: of many mappings that are cut some expire all the time. The
// others go all the same.
func TestExpiringMappingsGo_DEL03_NAT07(t *testing.T) {
	const mappings = 30_000
	lab := newLab(t)
	o := labOptions(lab)
	fullCone(&o)
	o.Mappings.Most = 2 * mappings
	k := openKernel(t, o)
	apply(t, k, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 65535}})
	loadMappings(t, lab, alice, eip, mappings, func(i int) time.Duration { return time.Duration(3000+i) * time.Millisecond })
	apply(t, k, nat.Entry{Inside: alice})
	proofs, err := k.Reap(testContext(t), []netip.Addr{alice})
	if err != nil || len(proofs) != 1 {
		t.Fatalf("receipts are %+v, %v", proofs, err)
	}
	for _, set := range learnedSets {
		left := 0
		err := elements(testContext(t), k.conn, testTable, set, func() { left = 0 }, func([]byte) { left++ })
		if err != nil || left > 0 {
			t.Errorf("%d elements of %s are left, %v", left, set, err)
		}
	}
	if n, all := proofs[0].Elements, len(learnedSets)*mappings; n == 0 || n > all+2 {
		t.Errorf("the receipt counts %d elements, of %d before some expired", n, all)
	}
}

// TestSharedPort_NAT07: a new endpoint that meets the port of another one goes on without a
// mapping, and the other one keeps its own.
func TestSharedPort_NAT07(t *testing.T) {
	w := newWireTestWith(t, fullCone)
	apply(t, w, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 1024}})
	a, b, third := w.host(t, 0, 9), w.host(t, 1, 9), w.host(t, 1, 10)
	first, second := w.socket(t, alice, 5000), w.socket(t, alice, 5001)
	seen := seenAs(t, first, a)
	wantPass(t, second, portOf(b), b, seen)
	wantPass(t, b, seen, second, portOf(b))
	wantPass(t, third, seen, first, portOf(third))
	if n := w.learned(t, mapBIB, alice); n != 1 {
		t.Errorf("%d mappings, want one", n)
	}
	w.counted(t, chainLearn+"_udp_own", "shared")
}

// shortUDP makes mappings of UDP, and conntrack's entries, last two seconds.
func shortUDP(o *Options) {
	fullCone(o)
	o.Timeouts.UDP = 2 * time.Second
}

// TestRefreshed_NAT06: packets of the subscriber keep its mapping, those of a flow that a host
// outside began too.
func TestRefreshed_NAT06(t *testing.T) {
	w := newWireTestWith(t, shortUDP)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	s, a, third, fourth := w.socket(t, alice, 5000), w.host(t, 0, 9), w.host(t, 1, 9), w.host(t, 1, 10)
	seen := seenAs(t, s, a)
	wantPass(t, third, seen, s, portOf(third))
	for began := time.Now(); time.Since(began) < 6*time.Second; {
		_, _ = passes(s, portOf(third), third, within) // an answer to the third host
		_, _ = passes(third, netip.AddrPortFrom(seen.Addr(), 1), s, 50*time.Millisecond)
	}
	wantPass(t, fourth, seen, s, portOf(fourth))
	if again := seenAs(t, s, fourth); again != seen {
		t.Errorf("seen from %v, before from %v", again, seen)
	}
}

// TestNotRefreshed_NAT08: neither packets from outside nor the ICMP errors that answer them
// keep a mapping.
func TestNotRefreshed_NAT08(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("closed=%t", closed), func(t *testing.T) {
			w := newWireTestWith(t, shortUDP)
			apply(t, w, blockOf(alice, nat.GateOpen, 0))
			s, third := w.socket(t, alice, 5000), w.host(t, 1, 9)
			seen := seenAs(t, s, w.host(t, 0, 9))
			wantPass(t, third, seen, s, portOf(third))
			if closed {
				_ = s.Close()
			}
			testenv.Succeeds(t, func() error {
				if _, err := third.WriteToUDPAddrPort([]byte("!"), seen); err != nil {
					return err
				}
				if w.learned(t, mapEIF, alice) > 0 {
					return errors.New("the mapping lasts")
				}
				return nil
			})
			if n := w.learnedOf(t, alice); n > 0 {
				t.Errorf("%d elements outlast the eif element", n)
			}
		})
	}
}

// counted waits until a rule, which lets its packets go on, has counted some.
func (w wireTest) counted(t *testing.T, chain, comment string) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		for line := range strings.Lines(run(t, w.Lab, "nft", "list", "chain", "ip", testTable, chain)) {
			if strings.Contains(line, comment) && !strings.Contains(line, "packets 0") {
				return nil
			}
		}
		return fmt.Errorf("chain %s counted nothing: %s", chain, comment)
	})
}

// TestMappingsAreBounded_I10: at the bound flows go on without mappings, and it is told.
func TestMappingsAreBounded_I10(t *testing.T) {
	var told logLines
	w := newWireTestWith(t, func(o *Options) {
		fullCone(o)
		o.Mappings.Most, o.Logger = 5, told.logger()
	})
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	host := w.host(t, 0, 9)
	for port := uint16(5000); port < 5020; port++ {
		_ = seenAs(t, w.socket(t, alice, port), host)
	}
	if n := w.learned(t, mapBIB, alice); n < 4 || n > 5 {
		t.Errorf("%d mappings, want 5", n)
	}
	w.counted(t, "remember_udp", "too many mappings")
	testenv.Succeeds(t, func() error {
		if f := w.MappingFill(); f.Limit != 5 || f.Mappings < 4 || !strings.Contains(told.String(), "learned mappings come to their bound") {
			return fmt.Errorf("fill is %+v, log says %s", f, told.String())
		}
		return nil
	})
}

// TestMappingsSurvive_I7_I9: mappings stay in a restart. A table that nft restores has none of
// them, and learns them again.
func TestMappingsSurvive_I7_I9(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	strict(&o)
	first := openKernel(t, o)
	w := wireTest{Lab: lab, Kernel: first}
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	s, host, third := w.socket(t, alice, 5000), w.host(t, 0, 9), w.host(t, 1, 9)
	seen := seenAs(t, s, host)
	all := w.learnedOf(t, alice)
	_ = first.Close()
	second := openKernel(t, o)
	if got := w.learnedOf(t, alice); got != all || all < 4 {
		t.Errorf("%d elements after a restart, %d before", got, all)
	}
	wantPass(t, third, seen, s, portOf(third))

	saved := run(t, lab, "nft", "list", "ruleset")
	run(t, lab, "nft", "flush", "ruleset")
	loadFile(t, lab, saved)
	if got := w.learned(t, mapEIF, alice); got != 1 {
		t.Errorf("the restored table has %d mappings of %v", got, alice)
	}
	if err := second.LearnRest(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := w.learnedOf(t, alice); got != 0 {
		t.Errorf("%d elements are left of the restored table", got)
	}
	if again := seenAs(t, s, host); again != seen {
		t.Errorf("the flow is seen from %v, before from %v", again, seen)
	}
	wantPass(t, w.host(t, 1, 10), seen, s, netip.AddrPortFrom(w.Remotes[1], 10))
	run(t, lab, "nft", "delete", "table", "ip", testTable)
	if err := second.LearnRest(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if again := seenAs(t, s, host); again != seen {
		t.Errorf("after a flush the flow is seen from %v, before from %v", again, seen)
	}
	if err := second.SetPrefixes(testContext(t), o.InsidePrefixes, o.OutsidePrefixes, Mappings{}); err != nil {
		t.Fatal(err)
	}
	if list := run(t, lab, "nft", "list", "table", "ip", testTable); strings.Contains(list, mapEIF) || strings.Contains(list, chainLearn) {
		t.Errorf("without mappings the table is %s", list)
	}
	wantPass(t, s, portOf(host), host, seen)
}

// TestMappingsOfSeveralBlocks_DEL03: after a restart the block map has only the newest block.
func TestMappingsOfSeveralBlocks_DEL03(t *testing.T) {
	w := newWireTestWith(t, strict)
	host := w.host(t, 0, 9)
	blocks := nat.Blocks{Block: blockOf(alice, nat.GateOpen, 0).Block}
	var seen []netip.AddrPort
	for i := range 3 {
		e := blockOf(alice, nat.GateOpen, i)
		blocks, _ = blocks.With(e.Block)
		apply(t, w, e)
		seen = append(seen, seenAs(t, w.socket(t, alice, uint16(5000+i)), host))
		if !inBlock(e, seen[i]) {
			t.Errorf("a flow of block %d is seen from %v", i, seen[i])
		}
	}
	k := openKernel(t, w.options)
	apply(t, k, nat.Entry{Inside: alice})
	k.NoteBlocks(alice, blocks)
	proofs, err := k.Reap(testContext(t), []netip.Addr{alice})
	if err != nil || len(proofs) != 1 || proofs[0].Elements < 4*len(seen) {
		t.Errorf("receipts are %+v: %v", proofs, err)
	}
	w.wantNoneLearned(t, alice, seen...)
}

// TestNoNATLearnsNothing_NAT29_NAT07: a session without NAT makes no mapping, and takes none that
// its endpoint has.
func TestNoNATLearnsNothing_NAT29_NAT07(t *testing.T) {
	w := newNoNATTest(t, func(t testing.TB, o Options) *Kernel {
		fullCone(&o)
		return startKernel(t, o)
	})
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	s, a, third, b := w.socket(t, alice, 5000), w.host(t, 0, 9), w.host(t, 0, 10), w.host(t, 1, 9)
	wantPass(t, s, portOf(b), b, portOf(s))
	if n := w.learnedOf(t, alice); n != 0 {
		t.Errorf("a session without NAT has %d elements of mappings", n)
	}
	seen := seenAs(t, s, a)
	wantPass(t, third, seen, s, portOf(third))
	wantPass(t, s, portOf(b), b, portOf(s))
	other := w.host(t, 1, 10)
	wantPass(t, s, portOf(other), other, portOf(s))
}

// TestMappingsLastAsTheLongestTimeouts_NAT05: a group with longer timeouts than others keeps its
// mappings.
func TestMappingsLastAsTheLongestTimeouts_NAT05(t *testing.T) {
	o := Options{Timeouts: testTimeouts, GroupTimeouts: []nat.GroupTimeouts{{}, {Own: nat.Timeouts{UDP: 2 * testTimeouts.UDP}}, {Own: nat.Timeouts{UDP: time.Second}}}}
	for _, p := range learnedProtocols(o) {
		want := testTimeouts.TCPTransitory
		if p.number == unix.IPPROTO_UDP {
			want = 2 * testTimeouts.UDP
		}
		if p.timeout != want {
			t.Errorf("mappings of %s last %v, want %v", p.name, p.timeout, want)
		}
	}
}
