package nftnat

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// dns is the port of a remote whose flows idle out soon.
const dns = 7053

// twoGroups has alice in a group with timeouts of its own, and bob in a plain one.
func twoGroups() []nat.GroupTimeouts {
	return []nat.GroupTimeouts{
		{
			Inside: []netip.Prefix{netip.PrefixFrom(alice, 32)},
			Own:    nat.Timeouts{TCPEstablished: 8000 * time.Second, TCPPartialOpen: 250 * time.Second, TCPPartialClose: 260 * time.Second, UDP: 600 * time.Second},
			Ports:  []nat.PortTimeout{{Protocol: unix.IPPROTO_UDP, Port: dns, Timeout: 10 * time.Second}, {Protocol: unix.IPPROTO_TCP, Port: dns, Timeout: 20 * time.Second}},
		},
		{Inside: []netip.Prefix{netip.PrefixFrom(bob, 32)}},
	}
}

// askFrom begins a UDP flow from a port of a subscriber to a server.
func (w wireTest) askFrom(t *testing.T, inside netip.Addr, port uint16, server netip.AddrPort) {
	t.Helper()
	if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(inside, port), server); err != nil {
		t.Fatal(err)
	}
}

// TestTimeoutsOfGroups_NAT05_NAT17_NAT18_NAT19 reads from conntrack when flows of two groups
// expire, towards a port with a timeout of its own and another one.
func TestTimeoutsOfGroups_NAT05_NAT17_NAT18_NAT19(t *testing.T) {
	w := newWireTestWith(t, func(o *Options) { o.GroupTimeouts = twoGroups() })
	server, err := w.StartEcho(netip.AddrPortFrom(w.Remotes[1], dns))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	for _, c := range []struct {
		inside            netip.Addr
		plain, port       time.Duration
		established, open time.Duration
	}{
		{alice, 600 * time.Second, 10 * time.Second, 8000 * time.Second, 250 * time.Second},
		{bob, testTimeouts.UDP, testTimeouts.UDP, testTimeouts.TCPEstablished, testTimeouts.TCPTransitory},
	} {
		w.askFrom(t, c.inside, 5001, w.echo.Addr())
		w.askFrom(t, c.inside, 5002, server.Addr())
		w.wantExpiryOf(t, c.inside, "udp sport=5001", c.plain)
		w.wantExpiryOf(t, c.inside, "udp sport=5002", c.port)
		standing := w.flow(t, c.inside)
		w.wantExpiryOf(t, c.inside, "tcp ESTABLISHED", c.established)
		if err := standing.Close(); err != nil { // by a reset
			t.Fatal(err)
		}
		syn := netlab.Packet{ // nobody answers
			Protocol: netlab.TCP, Flags: netlab.SYN, Source: netip.AddrPortFrom(c.inside, 5005), Destination: netip.MustParseAddrPort("203.0.113.99:80"),
		}
		if err := w.Subscriber.Send(syn); err != nil {
			t.Fatal(err)
		}
		w.wantExpiryOf(t, c.inside, "tcp SYN_SENT", c.open)
	}
	w.wantExpiryOf(t, alice, "tcp CLOSE", 260*time.Second)
	w.wantExpiryOf(t, bob, "tcp CLOSE", testTimeouts.TCPTransitory)
	if _, err := w.Subscriber.AskTCP(testContext(t), netip.AddrPortFrom(alice, 5003), server.Addr()); err != nil {
		t.Fatal(err)
	}
	w.wantExpiryOf(t, alice, "tcp sport=5003", 20*time.Second)

	soon := 0
	if err := w.Sessions(testContext(t), func(s Session) error {
		if s.Protocol == unix.IPPROTO_UDP && s.Remote.Port() == dns && s.Inside.Addr() == alice {
			soon++
			if s.ExpiresIn <= 0 || s.ExpiresIn > 10*time.Second {
				t.Errorf("the session expires in %v", s.ExpiresIn)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if soon != 1 {
		t.Errorf("%d sessions of the port, want 1", soon)
	}
}

// TestGroupTimeoutsOfInbound_NAT05 has a flow that begins outside, through a mapping: the group of the
// subscriber that it reaches counts.
func TestGroupTimeoutsOfInbound_NAT05(t *testing.T) {
	w := newWireTestWith(t, func(o *Options) { o.GroupTimeouts = twoGroups() })
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	run(t, w.Lab, "nft", `table ip inbound {
		chain c {
			type nat hook prerouting priority dstnat
			ip daddr 198.51.100.1 udp dport 1100 dnat to 100.64.0.10:9
		}
	}`)
	err := w.Internet.Send(netlab.Packet{
		Protocol: netlab.UDP, Source: netip.AddrPortFrom(w.Remotes[0], 5000), Destination: netip.MustParseAddrPort("198.51.100.1:1100"),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.wantExpiry(t, "udp dport=1100 src=100.64.0.10", 600*time.Second)
}

// TestGroupTimeoutsChange changes them at run time, and the settings beneath them: flows that
// stand keep theirs, later ones have the new ones. A new start goes on with them.
func TestGroupTimeoutsChange(t *testing.T) {
	w := neighbourhood(t)
	w.Kernel = openKernel(t, labOptions(w.Lab)) // it does not run, and so leaves alone what the next one does
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	chain := func() string { return run(t, w.Lab, "nft", "list", "chain", "ip", testTable, chainTimeouts) }
	before := chain()
	w.askFrom(t, alice, 5001, w.echo.Addr())
	if err := w.SetGroupTimeouts(testContext(t), twoGroups()); err != nil {
		t.Fatal(err)
	}
	w.askFrom(t, alice, 5001, w.echo.Addr())
	w.askFrom(t, alice, 5002, w.echo.Addr())
	w.wantExpiryOf(t, alice, "udp sport=5001", testTimeouts.UDP)
	w.wantExpiryOf(t, alice, "udp sport=5002", 600*time.Second)

	general := testTimeouts
	general.UDP, general.ICMP = 900*time.Second, 90*time.Second
	if err := w.SetTimeouts(testContext(t), general); err != nil {
		t.Fatal(err)
	}
	w.askFrom(t, alice, 5003, w.echo.Addr())
	w.askFrom(t, bob, 5003, w.echo.Addr())
	w.wantExpiryOf(t, alice, "udp sport=5003", 600*time.Second)
	w.wantExpiryOf(t, bob, "udp sport=5003", 900*time.Second)

	again := labOptions(w.Lab) // a start with other groups
	again.Timeouts, again.GroupTimeouts = general, twoGroups()
	again.GroupTimeouts[0].Own.UDP = 700 * time.Second
	k := openKernel(t, again)
	w.askFrom(t, alice, 5002, w.echo.Addr())
	w.askFrom(t, alice, 5004, w.echo.Addr())
	w.wantExpiryOf(t, alice, "udp sport=5002", 600*time.Second)
	w.wantExpiryOf(t, alice, "udp sport=5004", 700*time.Second)

	if err := k.SetTimeouts(testContext(t), testTimeouts); err != nil {
		t.Fatal(err)
	}
	if err := k.SetGroupTimeouts(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	if got := chain(); got != before {
		t.Errorf("without groups the chain is\n%s\nwas\n%s", got, before)
	}
	got := run(t, w.Lab, "nft", "list", "table", "ip", testTable)
	for _, gone := range []string{mapGroupTimeouts, mapPortTimeouts, "chain udp-", "chain tcp-"} {
		if strings.Contains(got, gone) {
			t.Errorf("%q is left: %s", gone, got)
		}
	}
}

// TestICMPTimeoutIsTheLongest_NAT22: no group gets a shorter one than it has.
func TestICMPTimeoutIsTheLongest_NAT22(t *testing.T) {
	for name, c := range map[string]struct {
		own  [2]time.Duration
		want time.Duration
	}{
		"none of its own":  {want: 60 * time.Second},
		"longer in one":    {own: [2]time.Duration{0, 90 * time.Second}, want: 90 * time.Second},
		"shorter in one":   {own: [2]time.Duration{30 * time.Second, 0}, want: 60 * time.Second},
		"shorter in every": {own: [2]time.Duration{30 * time.Second, 40 * time.Second}, want: 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWireTestWith(t, func(o *Options) {
				o.GroupTimeouts = twoGroups()
				for i := range o.GroupTimeouts {
					o.GroupTimeouts[i].Own.ICMP = c.own[i]
				}
			})
			apply(t, w, blockOf(alice, nat.GateOpen, 0))
			if _, err := w.Ping(testContext(t), alice, 77); err != nil {
				t.Fatal(err)
			}
			w.wantExpiry(t, "icmp id=77", c.want)
		})
	}
}

// TestGroupTimeoutsArePutRight_I9 has others flush a map, delete another, and load the listing
// that nft printed.
func TestGroupTimeoutsArePutRight_I9(t *testing.T) {
	w := newWireTestWith(t, func(o *Options) { o.GroupTimeouts = twoGroups() })
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	list := func() string { // of a table that is away for a moment, nothing
		all := run(t, w.Lab, "nft", "-a", "list", "ruleset")
		return withoutHandles(withoutCounts(all)) + timeoutMaps(t, w.Lab)
	}
	want := list()
	saved := filepath.Join(t.TempDir(), "saved.nft")
	if err := os.WriteFile(saved, []byte(run(t, w.Lab, "nft", "list", "ruleset")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, others := range [][]string{
		{"nft", "flush map ip " + testTable + " " + mapGroupTimeouts},
		{"nft", "flush chain ip " + testTable + " timeouts; delete map ip " + testTable + " " + mapPortTimeouts},
		{"nft", "flush ruleset"},
		{"sh", "-c", "nft flush ruleset; nft -f " + saved},
	} {
		t.Run(strings.Join(others, " ")[:16], func(t *testing.T) {
			run(t, w.Lab, others[0], others[1:]...)
			testenv.Succeeds(t, func() error {
				if got := list(); got != want {
					return fmt.Errorf("the table is\n%s\nwant\n%s", got, want)
				}
				return nil
			})
			w.askFrom(t, alice, 5001, w.echo.Addr())
		})
	}
	w.wantNoLeak(t, alice)
}

// TestSavedGroupTimeoutsWorkAlone_I8 loads the listing where no sessiond runs: it has every
// timeout, and a later start finds nothing to change in the maps.
func TestSavedGroupTimeoutsWorkAlone_I8(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.GroupTimeouts = twoGroups()
	k := openKernel(t, o)
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	want := run(t, lab, "nft", "list", "ruleset")
	saved := filepath.Join(t.TempDir(), "saved.nft")
	if err := os.WriteFile(saved, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "flush", "ruleset")
	run(t, lab, "nft", "-f", saved)
	if got := run(t, lab, "nft", "list", "ruleset"); got != want {
		t.Errorf("loaded, it is\n%s\nwant\n%s", got, want)
	}
	if out := run(t, lab, "nft", "-j", "list", "ruleset"); !json.Valid([]byte(out)) {
		t.Errorf("nft -j list ruleset prints no JSON: %s", out)
	}
	again := openKernel(t, o)
	wantEntries(t, again, blockOf(alice, nat.GateOpen, 0))
	if err := again.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if left := run(t, lab, "nft", "list", "ruleset"); strings.TrimSpace(left) != "" {
		t.Errorf("removed, there is\n%s", left)
	}
}

// timeoutMaps lists both maps of timeouts.
func timeoutMaps(t *testing.T, lab *netlab.Lab) string {
	t.Helper()
	var all string
	for line := range strings.Lines(run(t, lab, "nft", "list", "ruleset")) {
		if strings.Contains(line, " : goto tcp-") || strings.Contains(line, " : goto udp-") {
			all += strings.TrimSpace(line) + "\n"
		}
	}
	return all
}

// TestRulesOfManyGroups: their number depends on the number of different timeouts only.
func TestRulesOfManyGroups(t *testing.T) {
	rulesOf := func(groups, prefixes int) int {
		o := Options{Table: testTable, Timeouts: testTimeouts}
		for i := range groups {
			g := nat.GroupTimeouts{Own: nat.Timeouts{UDP: 600 * time.Second}, Ports: []nat.PortTimeout{{Protocol: unix.IPPROTO_UDP, Port: dns, Timeout: 10 * time.Second}}}
			for j := range prefixes {
				g.Inside = append(g.Inside, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64 + byte(i), byte(j), 0}), 25))
			}
			o.GroupTimeouts = append(o.GroupTimeouts, g)
		}
		return len(newTimeoutTable(o).rules)
	}
	if one, many := rulesOf(1, 1), rulesOf(50, 100); one != many {
		t.Errorf("%d rules for one group, %d for 50", one, many)
	}
}
