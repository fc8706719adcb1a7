package nftnat

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// sentPairs counts the refused pairs whose first endpoint is one of an outside address' port, or
// of all of its ports.
func (w wireTest) sentPairs(t testing.TB, from ...netip.AddrPort) (n int) {
	t.Helper()
	list := run(t, w.Lab, "nft", "list", "set", "ip", testTable, setSent)
	if len(from) == 0 {
		return strings.Count(list, "expires")
	}
	for _, e := range from {
		for _, protocol := range []string{"udp", "tcp"} {
			n += strings.Count(list, protocol+" . "+e.Addr().String()+" . "+portText(e)+" . ")
		}
	}
	return n
}

func portText(e netip.AddrPort) string { return strings.TrimPrefix(e.String(), e.Addr().String()+":") }

// filteredDrops returns the number of packets that were refused as filtered.
func filteredDrops(t *testing.T, w wireTest) uint64 {
	t.Helper()
	for _, c := range dropsOf(t, w) {
		if c.Drop == (nat.Drop{Reason: nat.DropFiltered, Direction: nat.DropIn}) {
			return c.Packets
		}
	}
	return 0
}

// TestHairpinFiltered_NAT09_NAT07: with address-and-port-dependent filtering a neighbour reaches
// a mapping that has sent to the neighbour's outside endpoint, from that endpoint, and else not.
func TestHairpinFiltered_NAT09_NAT07(t *testing.T) {
	w := newWireTestWith(t, strictRestricted)
	far := nat.Entry{Inside: netip.MustParseAddr("100.64.0.12"), Gate: nat.GateOpen, Block: nat.Block{Outside: eip.Next(), First: 1024, Last: 1535}}
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1), far)
	if err := w.AddSubscriber(far.Inside); err != nil {
		t.Fatal(err)
	}
	host := w.host(t, 0, 9)
	for _, c := range []struct {
		name string
		peer netip.Addr
		port uint16
	}{{"same outside address", bob, 5000}, {"another outside address", far.Inside, 5000}, {"itself", alice, 5500}} {
		t.Run(c.name, func(t *testing.T) {
			s, peer, stranger := w.socket(t, alice, c.port+1), w.socket(t, c.peer, c.port+2), w.socket(t, c.peer, c.port+3)
			seen, peerSeen := seenAs(t, s, host), seenAs(t, peer, host)
			_ = seenAs(t, stranger, host)
			before := filteredDrops(t, w)
			wantSilence(t, s, peerSeen, peer)
			if got := filteredDrops(t, w) - before; got != 1 {
				t.Errorf("%d packets are counted as filtered, want 1", got)
			}
			wantSilence(t, stranger, seen, s)
			wantPass(t, peer, seen, s, peerSeen)
			wantPass(t, s, peerSeen, peer, seen)
			wantPass(t, peer, seen, s, peerSeen)
			wantSilence(t, w.host(t, 1, 0), seen, s)
			again := w.socket(t, c.peer, c.port+4) // an endpoint without a mapping until it sends there
			wantSilence(t, again, seen, s)
		})
	}
	w.wantNoLeak(t, alice)
}

// TestHairpinFilteredTCP_NAT09_NAT20: the SYN of a neighbour to a mapping that has not sent to it
// gets no answer, and opens the way back.
func TestHairpinFilteredTCP_NAT09_NAT20(t *testing.T) {
	w := newWireTestWith(t, strictRestricted)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	atAlice, aliceSeen := w.serveTCP(t, alice)
	_, bobSeen := w.serveTCP(t, bob)
	dial := func(from netip.Addr, to netip.AddrPort, within time.Duration) error {
		d := net.Dialer{Control: reusePort, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 6000)), Timeout: within}
		return w.Subscriber.Do(func() error {
			conn, err := d.DialContext(testContext(t), "tcp4", to.String())
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() })
			}
			return err
		})
	}
	before := filteredDrops(t, w)
	if err := dial(alice, bobSeen, silence); err == nil {
		t.Error("a neighbour connects to a mapping that has not sent to it")
	}
	if filteredDrops(t, w) == before {
		t.Error("the SYN is not counted as filtered")
	}
	if err := dial(bob, aliceSeen, within); err != nil {
		t.Fatalf("the mapping has sent to the neighbour, who does not connect: %v", err)
	}
	accepted, err := atAlice.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if source := accepted.RemoteAddr().(*net.TCPAddr).AddrPort(); source != bobSeen {
		t.Errorf("the neighbour is seen from %v, want %v", source, bobSeen)
	}
}

// TestRefusedSenderIsMapped_NAT01_NAT09: a first packet that a neighbour's filter refuses makes the
// mapping of its sender, as any other does.
func TestRefusedSenderIsMapped_NAT01_NAT09(t *testing.T) {
	w := newWireTestWith(t, strictRestricted)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	peer := w.socket(t, bob, 5000)
	peerSeen := seenAs(t, peer, w.host(t, 0, 9))
	wantSilence(t, w.socket(t, alice, 5000), peerSeen, peer)
	if n := w.learned(t, mapBIB, alice); n != 1 {
		t.Errorf("%d mappings of the sender, want 1", n)
	}
}

// TestSentGoesWithTheGate_DEL02_DEL03_NAT09: the removal of a subscriber takes its refused pairs, and
// those of nobody else; the next holder of its port is as closed as any.
func TestSentGoesWithTheGate_DEL02_DEL03_NAT09(t *testing.T) {
	for _, from := range []string{"daemon", "restarted daemon"} {
		t.Run(from, func(t *testing.T) {
			w := newWireTestWith(t, strictRestricted)
			one := nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 1024}}
			apply(t, w, one, blockOf(bob, nat.GateOpen, 1))
			host := w.host(t, 0, 9)
			s, peer := w.socket(t, alice, 5000), w.socket(t, bob, 5000)
			seen, peerSeen := seenAs(t, s, host), seenAs(t, peer, host)
			wantSilence(t, s, peerSeen, peer)
			wantSilence(t, w.socket(t, bob, 5001), seen, s) // of another, which stays
			if n := w.sentPairs(t, seen); n != 1 {
				t.Fatalf("%d refused pairs of %v, want 1", n, seen)
			}
			k := w.cutter(t, from)
			apply(t, k, nat.Entry{Inside: alice})
			wantSilence(t, peer, seen, s)
			proofs, err := k.Reap(testContext(t), []netip.Addr{alice})
			if want := MappingElements + 2; err != nil || len(proofs) != 1 || proofs[0].Elements < want-1 || proofs[0].Elements > want {
				t.Errorf("receipts are %+v, %v; want %d elements", proofs, err, want)
			}
			if own, all := w.sentPairs(t, seen), w.sentPairs(t); own != 0 || all < 1 {
				t.Errorf("%d refused pairs of %v are left, of %d; want none, and those of others", own, seen, all)
			}
			if list := run(t, w.Lab, "nft", "list", "set", "ip", testTable, setSenders); strings.Contains(list, alice.String()) {
				t.Errorf("the sender is left: %s", list)
			}
			next := one
			next.Inside = netip.MustParseAddr("100.64.0.12")
			if err := w.AddSubscriber(next.Inside); err != nil {
				t.Fatal(err)
			}
			apply(t, k, next)
			heir := w.socket(t, next.Inside, 5000)
			if got := seenAs(t, heir, host); got != seen {
				t.Fatalf("the next holder is seen as %v, want %v", got, seen)
			}
			wantSilence(t, peer, seen, heir)
		})
	}
}

// TestExpiringPairsGo_DEL03_NAT09: of many refused pairs whose senders are cut some expire all the
// time. The others go all the same.
func TestExpiringPairsGo_DEL03_NAT09(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	strictRestricted(&o)
	k := openKernel(t, o)
	apply(t, k, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 9215}})
	const mappings, pairs = 4000, sentMost - 1000
	loadMappings(t, lab, alice, eip, mappings, func(int) time.Duration { return time.Hour })
	var list strings.Builder
	for i := range pairs {
		fmt.Fprintf(&list, "udp . %v . %d . %v . %d timeout %dms,", eip, 1024+i%mappings, eip.Next(), 1024+i/mappings, 1+i)
	}
	loadFile(t, lab, fmt.Sprintf("add element ip %s %s { %s }\nadd element ip %s %s { %v timeout 1h }\n", testTable, setSent, list.String(), testTable, setSenders, alice))
	apply(t, k, nat.Entry{Inside: alice})
	proofs, err := k.Reap(testContext(t), []netip.Addr{alice})
	if err != nil || len(proofs) != 1 {
		t.Fatalf("receipts are %+v, %v", proofs, err)
	}
	for _, set := range []string{setSent, setSenders} {
		n := 0
		err := elements(testContext(t), k.conn, testTable, set, func() { n = 0 }, func([]byte) { n++ })
		if err != nil || n > 0 {
			t.Errorf("%d elements of %s are left, %v", n, set, err)
		}
	}
	if n, all := proofs[0].Elements, MappingElements*mappings+pairs+1; n <= MappingElements*mappings+1 || n > all {
		t.Errorf("the receipt counts %d elements, of %d before some expired", n, all)
	}
}

// TestSentExpires_NAT06_NAT09: who was refused is forgotten with the idle timeout.
func TestSentExpires_NAT06_NAT09(t *testing.T) {
	w := newWireTestWith(t, func(o *Options) {
		strictRestricted(o)
		o.Timeouts.UDP = 2 * time.Second
	})
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	host := w.host(t, 0, 9)
	s, peer := w.socket(t, alice, 5000), w.socket(t, bob, 5000)
	seen, peerSeen := seenAs(t, s, host), seenAs(t, peer, host)
	wantSilence(t, s, peerSeen, peer)
	testenv.Succeeds(t, func() error {
		if _, err := passes(s, portOf(host), host, within); err != nil { // its mapping stays
			return err
		}
		if n := w.sentPairs(t, seen); n > 0 {
			return fmt.Errorf("%d refused pairs are left", n)
		}
		return nil
	})
	wantSilence(t, peer, seen, s)
}

// TestSentIsShared_NAT09_I10: one subscriber cannot fill the memory of refused pairs.
func TestSentIsShared_NAT09_I10(t *testing.T) {
	w := newWireTestWith(t, strictRestricted)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	host := w.host(t, 0, 9)
	peer := w.socket(t, bob, 5000)
	peerSeen := seenAs(t, peer, host)
	began := time.Now()
	const attempts = 4 * sentBurst
	for port := uint16(6000); port < 6000+attempts; port++ {
		s := w.socket(t, alice, port)
		_, err := s.WriteToUDPAddrPort([]byte("?"), peerSeen)
		_ = s.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	most := sentBurst + sentRate*int(time.Since(began)/time.Second+1)
	if n := w.sentPairs(t); n == 0 || n > most {
		t.Errorf("%d of %d refused pairs are remembered, want %d at most", n, attempts, most)
	}
	other := w.socket(t, alice, 5000)
	seen := seenAs(t, other, host)
	wantSilence(t, peer, seen, other)
	wantPass(t, other, peerSeen, peer, seen) // the neighbour's own pairs have room
}

// TestHairpinOfOthers_NAT09_NAT07: subscribers without learned mappings reach nobody behind such
// filtering, and everybody behind the other one.
func TestHairpinOfOthers_NAT09_NAT07(t *testing.T) {
	for _, open := range []bool{false, true} {
		w := newWireTestWith(t, func(o *Options) {
			strictRestricted(o)
			prefix := []netip.Prefix{netip.PrefixFrom(eip, 32)}
			o.Mappings.EndpointIndependent, o.Mappings.Strict, o.Mappings.Inside = prefix, prefix, []netip.Prefix{netip.PrefixFrom(alice, 32)}
			if open {
				o.Mappings.Open = prefix
			}
		})
		plain := blockOf(bob, nat.GateOpen, 1)
		plain.Outside = eip.Next()
		apply(t, w, blockOf(alice, nat.GateOpen, 0), plain)
		host := w.host(t, 0, 9)
		s, other := w.socket(t, alice, 5000), w.socket(t, bob, 5000)
		seen, otherSeen := seenAs(t, s, host), seenAs(t, other, host)
		wantSilence(t, s, otherSeen, other)
		if open {
			wantPass(t, other, seen, s, otherSeen)
		} else {
			wantSilence(t, other, seen, s)
		}
	}
}

// TestSentIsNotRestored_DEL03_NAT09: a table that nft restores from a file keeps no refused pair.
func TestSentIsNotRestored_DEL03_NAT09(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	strictRestricted(&o)
	w := wireTest{Lab: lab, Kernel: openKernel(t, o)}
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	host := w.host(t, 0, 9)
	s, peer := w.socket(t, alice, 5000), w.socket(t, bob, 5000)
	seen, peerSeen := seenAs(t, s, host), seenAs(t, peer, host)
	wantSilence(t, s, peerSeen, peer)
	saved := run(t, w.Lab, "nft", "list", "ruleset")
	run(t, w.Lab, "nft", "flush", "ruleset")
	loadFile(t, w.Lab, saved)
	if n := w.sentPairs(t); n != 1 {
		t.Errorf("the restored table has %d refused pairs, want 1", n)
	}
	if err := w.LearnRest(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if n := w.sentPairs(t); n != 0 {
		t.Errorf("%d refused pairs are left of the restored table", n)
	}
	wantSilence(t, peer, seen, s)
}

// TestSentAlarm_NAT09_I10: the log tells once that the memory of refused pairs comes to its bound,
// and once that it has room again.
func TestSentAlarm_NAT09_I10(t *testing.T) {
	var out strings.Builder
	w := mappingWatch{log: slog.New(slog.NewTextHandler(&out, nil))}
	for _, n := range []int{0, sentMost / 2, sentMost, sentMost, sentMost * 78 / 100, sentMost, sentMost / 2, sentMost / 2} {
		w.tellSent(n)
	}
	if near, well := strings.Count(out.String(), "comes to its bound"), strings.Count(out.String(), "has room again"); near != 1 || well != 1 {
		t.Errorf("told %d times that it comes to its bound, %d times that it has room:\n%s", near, well, out.String())
	}
}
