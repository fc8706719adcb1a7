package nftnat

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestPrefixesOf: the elements of a set of prefixes, read back, are the same
// addresses.
func TestPrefixesOf(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 9))
	for range 2000 {
		var want []netip.Prefix
		for range random.IntN(8) {
			a := netip.AddrFrom4([4]byte{byte(random.IntN(2)) * 255, byte(random.IntN(2)) * 255, byte(random.Uint32()), byte(random.Uint32())})
			want = append(want, netip.PrefixFrom(a, random.IntN(33)).Masked())
		}
		got := prefixesOf(elementsOf(addrrange.Of(want)))
		if !slices.Equal(addrrange.Of(got), addrrange.Of(want)) {
			t.Fatalf("%v read back as %v", want, got)
		}
		for i, p := range got {
			if p != p.Masked() || i > 0 && got[i-1].Overlaps(p) {
				t.Fatalf("%v read back as %v", want, got)
			}
		}
	}
}

// TestKeepsPrefixes_I9: a start with KeepPrefixes leaves the earlier start's prefixes, and
// their routes, until SetPrefixes; and flows go on, with their index.
func TestKeepsPrefixes_I9(t *testing.T) {
	lab := newLab(t)
	old := labOptions(lab)
	old.InsidePrefixes = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("10.0.0.0/8")}
	drained := netip.MustParsePrefix("203.0.114.0/24")
	old.OutsidePrefixes = []netip.Prefix{pool, drained}
	k := openKernel(t, old)
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}

	now := old
	now.InsidePrefixes = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}
	now.OutsidePrefixes, now.KeepPrefixes = []netip.Prefix{pool}, true
	k = startKernel(t, now)
	set := func() string { return run(t, lab, "nft", "list", "set", "ip", testTable, setInsidePrefixes) }
	routes := func() string { return run(t, lab, "ip", "route") }
	if out := set(); !strings.Contains(out, "100.64.0.0/10") || !strings.Contains(out, "10.0.0.0/8") || !strings.Contains(out, "172.16.0.0/12") {
		t.Errorf("inside prefixes are %s", out)
	}
	if out := routes(); !strings.Contains(out, "blackhole "+drained.String()) {
		t.Errorf("routes are %s", out)
	}
	flow, err := lab.OpenFlow(testContext(t), netip.AddrPortFrom(alice, 0))
	if err != nil {
		t.Fatalf("alice, whose prefix is kept: %v", err)
	}
	testenv.Succeeds(t, func() error {
		if k.SessionCount(alice) == 0 {
			return fmt.Errorf("the session of alice, seen as %v, is not in the index", flow.Source())
		}
		return nil
	})

	if err := k.SetPrefixes(testContext(t), now.InsidePrefixes, now.OutsidePrefixes, Mappings{}); err != nil {
		t.Fatal(err)
	}
	if out := set(); strings.Contains(out, "100.64.0.0") || !strings.Contains(out, "172.16.0.0/12") {
		t.Errorf("inside prefixes are %s", out)
	}
	if out := routes(); strings.Contains(out, drained.String()) || !strings.Contains(out, "blackhole "+pool.String()) {
		t.Errorf("routes are %s", out)
	}
}

// TestKeepsMappings_I9_NAT07: a start with KeepPrefixes leaves the learned mappings of prefixes
// that it does not have, and who may use them, until SetPrefixes; of its own prefixes it says
// itself who may.
func TestKeepsMappings_I9_NAT07(t *testing.T) {
	const drainedPort = 5000
	lab := newLab(t)
	drained, own := netip.PrefixFrom(eip, 32), netip.MustParsePrefix("198.51.100.2/32")
	old := labOptions(lab)
	old.OutsidePrefixes = []netip.Prefix{drained, own}
	old.Mappings = Mappings{EndpointIndependent: old.OutsidePrefixes, Open: old.OutsidePrefixes, Most: 1000, Pinned: true}
	first := openKernel(t, old)
	w := wireTest{Lab: lab, Kernel: first}
	elsewhere := blockOf(bob, nat.GateOpen, 1)
	elsewhere.Outside = own.Addr()
	apply(t, w, blockOf(alice, nat.GateOpen, 0), elsewhere)
	s, other := w.socket(t, alice, drainedPort), w.socket(t, bob, drainedPort)
	seen, seenOther := seenAs(t, s, w.host(t, 0, 9)), seenAs(t, other, w.host(t, 0, 10))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	now := old
	now.OutsidePrefixes, now.KeepPrefixes, now.Mappings = []netip.Prefix{own}, true, Mappings{Most: 1000}
	w.Kernel = openKernel(t, now)
	host := w.host(t, 1, 0)
	wantPass(t, host, seen, s, portOf(host))
	wantSilence(t, w.host(t, 1, 0), seenOther, other)
	if got := w.learnedOf(t, alice); got == 0 {
		t.Error("the mappings of the prefix are gone")
	}
	if list := run(t, lab, "nft", "list", "table", "ip", testTable); !strings.Contains(list, "map "+mapPinned) {
		t.Error("pins are gone")
	}
	if err := w.SetPrefixes(testContext(t), now.InsidePrefixes, now.OutsidePrefixes, now.Mappings); err != nil {
		t.Fatal(err)
	}
	if list := run(t, lab, "nft", "list", "table", "ip", testTable); strings.Contains(list, mapEIF) || strings.Contains(list, mapPinned) {
		t.Errorf("without mappings the table is %s", list)
	}
}

// TestOwnAddressIn_NAT27: the addresses of the router's interfaces are found.
func TestOwnAddressIn_NAT27(t *testing.T) {
	k := openKernel(t, labOptions(newLab(t)))
	for prefix, want := range map[netip.Prefix]netip.Addr{netlab.OutsideGateway.Masked(): netlab.OutsideGateway.Addr(), pool: {}} {
		if own, err := k.OwnAddressIn(prefix); err != nil || own != want {
			t.Errorf("in %v is %v, %v; want %v", prefix, own, err, want)
		}
	}
}

// TestKeepsMappedPrefixes_I9: a start with KeepPrefixes lets everybody in by the mappings that
// stand, also on addresses of which it does not know yet that they have any, until SetStatic.
func TestKeepsMappedPrefixes_I9(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	withStatic(&o)
	game := forward(unix.IPPROTO_UDP, 5000, 61000)
	k := openKernel(t, o)
	apply(t, k, mappedTo(blockOf(alice, nat.GateOpen, 0), game))
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}

	o.KeepPrefixes = true
	o.Static = []StaticPorts{{Outside: []netip.Prefix{netip.PrefixFrom(eip.Next(), 32)}, First: 61000, Last: 61999}}
	k = startKernel(t, o)
	at, err := lab.Subscriber.ListenUDP(netip.AddrPortFrom(alice, uint16(game.InsidePort)))
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	host := func(port uint16) *net.UDPConn {
		c, err := lab.Internet.ListenUDP(netip.AddrPortFrom(lab.Remotes[0], port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := host(7100)
	wantPass(t, first, game.Outside, at, portOf(first))
	if err := k.SetStatic(testContext(t), o.Static); err != nil {
		t.Fatal(err)
	}
	wantSilence(t, host(7101), game.Outside, at)
}
