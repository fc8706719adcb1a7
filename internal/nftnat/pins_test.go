package nftnat

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

func pinned(o *Options) { o.Mappings.Pinned = true }

func udpPin(port uint16, e nat.Entry) nat.Pin {
	return nat.Pin{Protocol: unix.IPPROTO_UDP, Port: nat.Port(port), Block: e.Block}
}

func setPins(t *testing.T, n Contract, inside netip.Addr, pins ...nat.Pin) {
	t.Helper()
	if err := n.SetPins(testContext(t), inside, pins); err != nil {
		t.Fatal(err)
	}
}

// pinned_NAT01_NAT35_DEL02 is a part of TestContract: a pinned inside port keeps its outside
// port towards a new destination, where new sessions get ports of another block. Its pin goes
// with the gate, or with the block.
func pinned_NAT01_NAT35_DEL02(t *testing.T, n Twin) {
	cutAndReap(t, n)
	old, apart := blockOf(alice, nat.GateOpen, 0), blockOf(alice, nat.GateOpen, 4)
	first := netip.AddrPortFrom(alice, 5400)
	wantPins := func(want ...nat.Pin) {
		t.Helper()
		if got := n.Pins(alice); !slices.Equal(got, want) {
			t.Errorf("pins are %v, want %v", got, want)
		}
	}
	setPins(t, n, alice, udpPin(5400, old))
	wantPins() // a closed gate, and no map
	apply(t, n, old)
	setPins(t, n, alice, udpPin(5400, old))
	wantPins() // no map
	if err := setMappings(t, n, Mappings{Pinned: true}); err != nil {
		t.Fatal(err)
	}
	seen := mustAsk(t, n, first)
	elsewhere := old
	elsewhere.Outside = netip.MustParseAddr("198.51.100.9")
	setPins(t, n, alice, udpPin(5401, apart), udpPin(5400, old), udpPin(5402, elsewhere))
	wantPins(udpPin(5400, old), udpPin(5401, apart))
	setPins(t, n, alice, udpPin(5400, old))
	wantPins(udpPin(5400, old))
	apply(t, n, apart)
	wantPins(udpPin(5400, old))
	if got := n.Pinned(); !slices.Equal(got, []netip.Addr{alice}) {
		t.Errorf("pinned are %v", got)
	}
	if again, err := n.Other(first); err != nil || again != seen {
		t.Errorf("towards another host the pinned port is seen as %v, %v; before as %v", again, err, seen)
	}
	if free, err := n.Other(netip.AddrPortFrom(alice, 5403)); err != nil || !apart.Contains(free.Addr(), nat.Port(free.Port())) {
		t.Errorf("a port without a pin is seen as %v, %v; want ports %d-%d", free, err, apart.First, apart.Last)
	}
	testenv.Succeeds(t, func() error { // the kernel's events may be on their way
		if ports := n.Ports(alice, unix.IPPROTO_UDP); !slices.Equal(ports, []uint16{5400, 5403}) {
			return fmt.Errorf("ports with sessions are %v", ports)
		}
		return nil
	})
	settled := 0
	if sure, err := n.SettledSessionsOf(testContext(t), alice, func(Session) error { settled++; return nil }); err != nil || !sure || settled != 3 {
		t.Errorf("%d sessions, %t, %v; want 3", settled, sure, err)
	}
	if vacant, err := n.Vacant(testContext(t), alice, old.Block); err != nil || vacant {
		t.Errorf("a block with a session is vacant: %t, %v", vacant, err)
	}
	wantPins() // they would lead into a block that others may get
	setPins(t, n, alice, udpPin(5400, old), udpPin(5403, apart))
	draining := apart
	draining.Gate = nat.GateDraining
	apply(t, n, draining)
	wantPins(udpPin(5400, old), udpPin(5403, apart))
	apply(t, n, nat.Entry{Inside: alice})
	wantPins()
	proofs, err := n.Reap(testContext(t), []netip.Addr{alice})
	if err != nil || len(proofs) != 1 || proofs[0].Elements != 2 || proofs[0].Deleted != 3 {
		t.Errorf("receipts are %+v, %v; want 3 entries and 2 elements", proofs, err)
	}
	apply(t, n, apart)
	if next, err := n.Ask(first); err != nil || !apart.Contains(next.Addr(), nat.Port(next.Port())) {
		t.Errorf("the next holder of the address is seen as %v, %v; want ports %d-%d", next, err, apart.First, apart.Last)
	}
	setPins(t, n, alice, udpPin(5400, old))
	other := apart
	other.Outside = elsewhere.Outside
	apply(t, n, other)
	wantPins() // they are of another outside address
	setPins(t, n, alice, udpPin(5400, other))
	if err := setMappings(t, n, Mappings{Pinned: true, EndpointIndependent: []netip.Prefix{pool}, Most: 100}); err != nil {
		t.Fatal(err)
	}
	setPins(t, n, alice, udpPin(5400, other))
	wantPins()                                                                     // its mappings are learned
	part := nat.Pin{Protocol: unix.IPPROTO_UDP, Remote: first, Block: other.Block} // no host of the lab
	setPins(t, n, alice, part)
	wantPins(part) // that is of a remote endpoint
	cutAndReap(t, n)
	if err := setMappings(t, n, Mappings{}); err != nil {
		t.Fatal(err)
	}
}

// narrowed_NAT35_DEL02 is a part of TestContract: new sessions to a pinned remote endpoint get ports
// of a part of the block, those to others of the whole, and those that stand keep theirs. The pin of
// an inside port comes before it. It goes with the gate.
func narrowed_NAT35_DEL02(t *testing.T, n Twin) {
	cutAndReap(t, n)
	if err := setMappings(t, n, Mappings{Pinned: true}); err != nil {
		t.Fatal(err)
	}
	e := blockOf(alice, nat.GateOpen, 0)
	apply(t, n, e)
	part, tail := e.Block, e.Block
	part.First, part.Last = part.First+128, part.First+255
	tail.First = tail.Last - 63
	in := func(what string, at netip.AddrPort, r nat.Block) {
		t.Helper()
		if !r.Contains(at.Addr(), nat.Port(at.Port())) {
			t.Errorf("%s is seen as %v, want ports %d-%d", what, at, r.First, r.Last)
		}
	}
	standing := mustAsk(t, n, netip.AddrPortFrom(alice, 5500))
	sessions := 0
	var echo netip.AddrPort
	if _, err := n.SettledSessionsOf(testContext(t), alice, func(s Session) error { sessions++; echo = s.Remote; return nil }); err != nil || sessions != 1 {
		t.Fatal(sessions, err)
	}
	ofEcho := nat.Pin{Protocol: unix.IPPROTO_UDP, Remote: echo, Block: part}
	ofPort := nat.Pin{Protocol: unix.IPPROTO_UDP, Port: 5502, Block: tail}
	setPins(t, n, alice, ofPort, ofEcho)
	if got := n.Pins(alice); !slices.Equal(got, []nat.Pin{ofEcho, ofPort}) {
		t.Errorf("pins are %v", got)
	}
	in("a new port", mustAsk(t, n, netip.AddrPortFrom(alice, 5501)), part)
	in("a pinned port", mustAsk(t, n, netip.AddrPortFrom(alice, 5502)), tail)
	if again := mustAsk(t, n, netip.AddrPortFrom(alice, 5500)); again != standing {
		t.Errorf("the standing session was seen as %v, is seen as %v", standing, again)
	}
	other, err := n.Other(netip.AddrPortFrom(alice, 5500))
	if err != nil || other != standing {
		t.Errorf("towards another host the port of %v is seen as %v, %v", standing, other, err)
	}
	ofEcho.Block = tail
	setPins(t, n, alice, ofEcho)
	in("a new port, after a change,", mustAsk(t, n, netip.AddrPortFrom(alice, 5503)), tail)
	apply(t, n, nat.Entry{Inside: alice})
	if got := n.Pins(alice); len(got) > 0 {
		t.Errorf("behind a closed gate pins are %v", got)
	}
	proofs, err := n.Reap(testContext(t), []netip.Addr{alice})
	if err != nil || len(proofs) != 1 || proofs[0].Elements != 1 {
		t.Errorf("receipts are %+v, %v; want an element", proofs, err)
	}
	if err := setMappings(t, n, Mappings{Pinned: true, EndpointIndependent: []netip.Prefix{pool}, Most: 100}); err != nil {
		t.Fatal(err)
	}
	apply(t, n, e)
	kept := mustAsk(t, n, netip.AddrPortFrom(alice, 5504))
	ofEcho.Block = part
	setPins(t, n, alice, ofEcho)
	learned := mustAsk(t, n, netip.AddrPortFrom(alice, 5505))
	in("a new port with learned mappings", learned, part)
	for port, first := range map[uint16]netip.AddrPort{5504: kept, 5505: learned} {
		if at, err := n.Other(netip.AddrPortFrom(alice, port)); err != nil || at != first {
			t.Errorf("towards another host the mapping %v is seen as %v, %v", first, at, err)
		}
	}
	cutAndReap(t, n)
	if err := setMappings(t, n, Mappings{}); err != nil {
		t.Fatal(err)
	}
}

// mappedBlocks_NAT01_NAT35 is a part of TestContract: with learned mappings an inside port
// keeps its outside port when new sessions get ports of another block, and a block is vacant
// only when no mapping leads to it either.
func mappedBlocks_NAT01_NAT35(t *testing.T, n Twin) {
	if err := setMappings(t, n, Mappings{EndpointIndependent: []netip.Prefix{pool}, Open: []netip.Prefix{pool}, Most: 100}); err != nil {
		t.Fatal(err)
	}
	old, apart := blockOf(alice, nat.GateOpen, 0), blockOf(alice, nat.GateOpen, 4)
	first := netip.AddrPortFrom(alice, 5500)
	apply(t, n, apart)
	seen := mustAsk(t, n, first)
	apply(t, n, old)
	if again, err := n.Other(first); err != nil || again != seen {
		t.Errorf("towards another host the mapped port is seen as %v, %v; before as %v", again, err, seen)
	}
	if free, err := n.Ask(netip.AddrPortFrom(alice, 5501)); err != nil || !old.Contains(free.Addr(), nat.Port(free.Port())) {
		t.Errorf("another port is seen as %v, %v; want ports %d-%d", free, err, old.First, old.Last)
	}
	err := n.SessionsOf(testContext(t), netip.PrefixFrom(alice, 32), func(s Session) error {
		return n.KillSession(testContext(t), s)
	})
	if err != nil {
		t.Fatal(err)
	}
	for b, want := range map[nat.Block]bool{apart.Block: false, old.Block: false, blockOf(alice, nat.GateOpen, 5).Block: true} {
		if vacant, err := n.Vacant(testContext(t), alice, b); err != nil || vacant != want {
			t.Errorf("ports %d-%d, without a session, are vacant: %t, %v; want %t", b.First, b.Last, vacant, err, want)
		}
	}
	if err := n.Reach(first, seen); err != nil {
		t.Errorf("the mapping without a session is not reached: %v", err)
	}
	cutAndReap(t, n)
	if err := setMappings(t, n, Mappings{}); err != nil {
		t.Fatal(err)
	}
}

// pinsIn counts the elements of the map of pins as nft lists them.
func (w wireTest) pinsIn(t *testing.T) int {
	t.Helper()
	return strings.Count(run(t, w.Lab, "nft", "list", "map", "ip", testTable, mapPinned), " udp . ")
}

// listMap lists a map of a table that may be away for a moment.
func (w wireTest) listMap(t *testing.T, name string) (string, error) {
	t.Helper()
	out, err := w.CGN.Output(testContext(t), "nft", "list", "map", "ip", testTable, name)
	return string(out), err
}

// TestPinsArePutRight_I6: pins that others take away come back, those that they add go, and so
// after the table was deleted; none of that hinders a cut. A start takes over those that it
// finds.
func TestPinsArePutRight_I6(t *testing.T) {
	w := newWireTestWith(t, pinned)
	old, apart := blockOf(alice, nat.GateOpen, 0), blockOf(alice, nat.GateOpen, 4)
	apply(t, w, apart)
	remote := nat.Pin{Protocol: unix.IPPROTO_UDP, Remote: netip.MustParseAddrPort("203.0.113.1:53"), Block: apart.Block}
	setPins(t, w, alice, remote, udpPin(5400, old), udpPin(5401, old))
	wantPins := func(n int) {
		t.Helper()
		testenv.Succeeds(t, func() error {
			list, err := w.listMap(t, mapPinned)
			if got := strings.Count(list, " udp . "); err != nil || got != n {
				return fmt.Errorf("%d pins in the table, want %d: %v", got, n, err)
			}
			if list, err = w.listMap(t, mapNarrowed); err != nil {
				return err
			}
			if n > 0 && strings.Count(list, " : 198.51.100.") != 1 || !strings.Contains(list, "udp . 100.64.0.10 . 203.0.113.1 . 53 : 198.51.100.1 . ") {
				return fmt.Errorf("the map of remote endpoints is\n%s", list)
			}
			return nil
		})
	}
	wantPins(2)
	element := func(verb string, inside netip.Addr, port int, value string) {
		t.Helper()
		run(t, w.Lab, "nft", verb, "element", "ip", testTable, mapPinned, fmt.Sprintf("{ udp . %v . %d %s }", inside, port, value))
	}
	element("delete", alice, 5400, "")
	wantPins(2)
	run(t, w.Lab, "nft", "flush", "map", "ip", testTable, mapNarrowed)
	wantPins(2)
	run(t, w.Lab, "nft", "add", "element", "ip", testTable, mapNarrowed, "{ udp . 100.64.0.11 . 203.0.113.1 . 53 : 198.51.100.1 . 1024-1151 }")
	wantPins(2)
	element("add", bob, 5402, ": 198.51.100.1 . 1024-1535")
	wantPins(2)
	saved := run(t, w.Lab, "nft", "list", "table", "ip", testTable)
	for _, want := range []string{"snat ip to meta l4proto . ip saddr . tcp sport map @pinned", "snat ip to meta l4proto . ip saddr . ip daddr . tcp dport map @narrowed", "udp . 100.64.0.10 . 5400 : 198.51.100.1 . 1024-1535"} {
		if !strings.Contains(saved, want) {
			t.Errorf("nft list table lacks %q:\n%s", want, saved)
		}
	}
	run(t, w.Lab, "nft", "delete", "table", "ip", testTable)
	wantPins(2)
	file := filepath.Join(t.TempDir(), "saved.nft")
	if err := os.WriteFile(file, []byte("delete table ip "+testTable+"\n"+saved), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, w.Lab, "nft", "-f", file)
	wantPins(2)
	if got := w.Pins(alice); len(got) != 3 {
		t.Errorf("pins are %v", got)
	}

	o := labOptions(w.Lab)
	pinned(&o)
	testenv.Succeeds(t, func() error { // the running one makes the loaded table its own meanwhile
		k, err := dialAndStart(testContext(t), o)
		if err != nil {
			return err
		}
		defer k.Close()
		if got := k.Pins(alice); !slices.Equal(got, []nat.Pin{remote, udpPin(5400, old), udpPin(5401, old)}) {
			return fmt.Errorf("a start takes over %v", got)
		}
		return nil
	})

	element("delete", alice, 5401, "")
	apply(t, w, nat.Entry{Inside: alice})
	if got := w.pinsIn(t); got != 0 || strings.Contains(run(t, w.Lab, "nft", "list", "map", "ip", testTable, mapNarrowed), "udp . ") {
		t.Errorf("%d pins outlast the gate, or those of remote endpoints", got)
	}
}

// TestPinsAreBounded_I10: beyond the bound, ports have no pin, and the log says so.
func TestPinsAreBounded_I10(t *testing.T) {
	var lines logLines
	w := newWireTestWith(t, func(o *Options) { pinned(o); o.Logger = lines.logger() })
	old := blockOf(alice, nat.GateOpen, 0)
	apply(t, w, old, blockOf(bob, nat.GateOpen, 1))
	var many []nat.Pin
	for port := 1; port < 1<<16; port++ {
		many = append(many, udpPin(uint16(port), old))
	}
	setPins(t, w, alice, many...)
	setPins(t, w, bob, udpPin(1, blockOf(bob, nat.GateOpen, 2)), udpPin(2, blockOf(bob, nat.GateOpen, 2)))
	if a, b := len(w.Pins(alice)), len(w.Pins(bob)); a != 1<<16-1 || b != 1 {
		t.Errorf("%d and %d pins, want %d and 1", a, b, 1<<16-1)
	}
	if !strings.Contains(lines.String(), "too many inside ports are pinned") {
		t.Errorf("the log says %s", lines.String())
	}
	apply(t, w, nat.Entry{Inside: alice}, nat.Entry{Inside: bob})
	if got := w.pinsIn(t); got != 0 {
		t.Errorf("%d pins outlast the gates", got)
	}
}
