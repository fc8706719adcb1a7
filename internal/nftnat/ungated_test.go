package nftnat

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// ungatedTest floods the machine itself.
type ungatedTest struct {
	wireTest
	port uint16
}

// send sends datagrams of as many flows from an address to the machine itself.
func (u *ungatedTest) send(t *testing.T, from netip.Addr, flows int) {
	t.Helper()
	for range flows {
		u.port++
		err := u.Subscriber.Send(netlab.Packet{
			Protocol: netlab.UDP, Source: netip.AddrPortFrom(from, 5000), Destination: netip.AddrPortFrom(netlab.InsideGateway.Addr(), u.port),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// entries counts the conntrack entries that begin with a source.
func (u *ungatedTest) entries(t *testing.T, source string) int {
	t.Helper()
	return strings.Count(run(t, u.Lab, "conntrack", "-L"), " src="+source)
}

// wantEntries waits until so many conntrack entries begin with an address: packets that were
// sent may be on their way.
func (u *ungatedTest) wantEntries(t *testing.T, source netip.Addr, want int) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		if got := u.entries(t, source.String()); got != want {
			return fmt.Errorf("%v has %d entries, want %d", source, got, want)
		}
		return nil
	})
}

// TestUngatedSessionsAreBounded_I10 floods the machine itself from addresses without an open
// gate. One of them, and all of them together, get no more conntrack entries than their
// bounds; meanwhile other addresses get theirs, and online subscribers are not counted.
func TestUngatedSessionsAreBounded_I10(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.MaxUngated = 50 // one: 1 a second, 10 at once
	k := startKernel(t, o)
	u := ungatedTest{wireTest: wireTest{Lab: lab, Kernel: k}}
	online, draining := netip.MustParseAddr("100.64.1.1"), netip.MustParseAddr("100.64.1.2")
	apply(t, k, blockOf(online, nat.GateOpen, 0), blockOf(draining, nat.GateDraining, 1))

	u.send(t, alice, 300)
	u.dropped(t, chainUngated, "of one address")
	if got := u.entries(t, alice.String()); got < 10 || got > 150 {
		t.Errorf("one address has %d entries, its bound is 10 at once and 1 a second", got)
	}
	for _, other := range []netip.Addr{bob, draining} {
		u.send(t, other, 8)
		u.wantEntries(t, other, 8)
	}

	made := netip.MustParseAddr("100.80.0.1")
	for range 500 {
		u.send(t, made, 1)
		made = made.Next()
	}
	u.dropped(t, chainUngated, "of addresses")
	if got := u.entries(t, "100.80."); got > 400 {
		t.Errorf("500 addresses got %d entries, the bound is 50 at once and 50 a second", got)
	}
	u.send(t, online, 200)
	u.wantEntries(t, online, 200)
	u.send(t, netip.MustParseAddr("192.0.2.1"), 200)
	u.wantEntries(t, netip.MustParseAddr("192.0.2.1"), 200) // outside the inside prefixes, such as a BNG's
}

// TestOutsideSessionsAreBounded_I10 floods the machine itself from made-up sources outside.
// They get no more conntrack entries than their bound; inside addresses without a gate, and
// hosts of other networks, get theirs meanwhile.
func TestOutsideSessionsAreBounded_I10(t *testing.T) {
	w := neighbourhood(t)
	o := labOptions(w.Lab)
	o.MaxUngated = 50
	w.Kernel = startKernel(t, o)
	w, other, _ := w.withThird(t)
	u := ungatedTest{wireTest: w}
	flood := func(from *netlab.Namespace, source netip.Addr, flows int) {
		t.Helper()
		for port := range flows {
			err := from.Send(netlab.Packet{
				Protocol: netlab.UDP, Source: netip.AddrPortFrom(source, uint16(1+port)), Destination: netip.AddrPortFrom(netlab.OutsideGateway.Addr(), 7000),
			})
			if err != nil {
				t.Fatal(err)
			}
			if from == w.Internet {
				source = source.Next()
			}
		}
	}
	flood(w.Internet, netip.MustParseAddr("192.0.2.1"), 250)
	flood(w.Internet, netip.MustParseAddr("192.0.3.1"), 250)
	w.dropped(t, chainInput, "too many new sessions from outside")
	if got := u.entries(t, "192.0."); got < 50 || got > 400 {
		t.Errorf("500 hosts outside got %d entries, the bound is 50 at once and 50 a second", got)
	}
	u.send(t, alice, 8)
	u.wantEntries(t, alice, 8)
	flood(other, third.host.Addr(), 200)
	u.wantEntries(t, third.host.Addr(), 200)
}

// TestUngatedUnbounded: without the option there is no bound.
func TestUngatedUnbounded(t *testing.T) {
	lab := newLab(t)
	k := startKernel(t, labOptions(lab))
	u := ungatedTest{wireTest: wireTest{Lab: lab, Kernel: k}}
	apply(t, k, blockOf(bob, nat.GateDraining, 0))
	for _, from := range []netip.Addr{alice, bob} {
		u.send(t, from, 300)
		u.wantEntries(t, from, 300)
	}
}

// TestUngatedCountsAreNobodysChange: the kernel's counts are not taken for changes of others,
// nor by a later start; and nft loads the listing that it saved of them.
func TestUngatedCountsAreNobodysChange(t *testing.T) {
	lab := newLab(t)
	var told logLines
	o := labOptions(lab)
	o.MaxUngated, o.Logger = 50, told.logger()
	k := openKernel(t, o)
	u := ungatedTest{wireTest: wireTest{Lab: lab, Kernel: k}}
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	u.send(t, bob, 100)
	u.dropped(t, chainUngated, "of one address")
	before := ruleHandles(t, lab)
	if !strings.Contains(before, bob.String()+" limit rate over 1/second") {
		t.Errorf("the table counts no address:\n%s", before)
	}
	if err := k.check(testContext(t), true); err != nil {
		t.Fatal(err)
	}
	again := openKernel(t, o)
	if strings.Contains(told.String(), "by others") || strings.Count(told.String(), "programming the nftables table") != 1 {
		t.Errorf("the log says %s", told.String())
	}
	file := filepath.Join(t.TempDir(), "saved.nft")
	if err := os.WriteFile(file, []byte("flush ruleset\n"+run(t, lab, "nft", "list", "ruleset")), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "-f", file)
	wantEntries(t, again, blockOf(alice, nat.GateOpen, 0))
}
