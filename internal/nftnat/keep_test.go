package nftnat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

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

	if err := k.SetPrefixes(testContext(t), now.InsidePrefixes, now.OutsidePrefixes); err != nil {
		t.Fatal(err)
	}
	if out := set(); strings.Contains(out, "100.64.0.0") || !strings.Contains(out, "172.16.0.0/12") {
		t.Errorf("inside prefixes are %s", out)
	}
	if out := routes(); strings.Contains(out, drained.String()) || !strings.Contains(out, "blackhole "+pool.String()) {
		t.Errorf("routes are %s", out)
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
