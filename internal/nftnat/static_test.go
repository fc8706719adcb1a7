package nftnat

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// withStatic sets ports of the pool apart.
func withStatic(o *Options) {
	o.Static = []StaticPorts{{Outside: []netip.Prefix{pool}, First: 61000, Last: 61999}}
}

func forward(protocol uint8, inside nat.Port, outside uint16) nat.Forward {
	return nat.Forward{Protocol: protocol, InsidePort: inside, Outside: netip.AddrPortFrom(eip, outside)}
}

// mappedTo is an entry with mappings.
func mappedTo(e nat.Entry, list ...nat.Forward) nat.Entry {
	e.Forwards = nat.NewForwards(list)
	return e
}

// TestStatic_NAT07_NAT09_DEL02: everybody reaches a mapped port, by UDP and TCP, other
// subscribers too, with and without learned mappings; flows of the mapped port leave by it, and
// none of them is learned. The removal takes the sessions.
func TestStatic_NAT07_NAT09_DEL02(t *testing.T) {
	for name, mode := range map[string]func(*Options){"alone": func(*Options) {}, "beside full cone": fullCone} {
		t.Run(name, func(t *testing.T) {
			w := newWireTestWith(t, func(o *Options) { mode(o); withStatic(o) })
			game, web := forward(unix.IPPROTO_UDP, 5000, 61000), forward(unix.IPPROTO_TCP, 8080, 61080)
			open := mappedTo(blockOf(alice, nat.GateOpen, 0), game, web)
			apply(t, w.Kernel, open, blockOf(bob, nat.GateOpen, 1))

			a, b := w.socket(t, alice, 5000), w.socket(t, bob, 5001)
			for i := range 2 {
				host := w.host(t, i, 7100)
				wantPass(t, host, game.Outside, a, portOf(host))
				wantPass(t, a, portOf(host), host, game.Outside)
			}
			from, err := passes(b, game.Outside, a, within)
			if second := blockOf(bob, nat.GateOpen, 1); err != nil || !second.Contains(from.Addr(), nat.Port(from.Port())) {
				t.Errorf("bob is seen by alice as %v, %v; want his outside endpoint", from, err)
			}
			wantPass(t, a, from, b, game.Outside)
			server, err := w.Subscriber.StartEcho(netip.AddrPortFrom(alice, uint16(web.InsidePort)))
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			client := netip.AddrPortFrom(w.Remotes[1], 7200)
			if seen, err := w.Internet.AskTCP(testContext(t), client, web.Outside); err != nil || seen != client {
				t.Errorf("the server of alice sees the client as %v, %v; want %v", seen, err, client)
			}

			if len(w.options.Mappings.Open) > 0 {
				if found, err := w.dumpMappingsOf(testContext(t), map[address]*nat.Reaped{alice.As4(): {}}); err != nil || len(found) > 0 {
					t.Errorf("learned were %+v, %v; want none of alice", found, err)
				}
				if list := run(t, w.Lab, "nft", "list", "set", "ip", testTable, setPairs); strings.Contains(list, alice.String()) || !strings.Contains(list, bob.String()) {
					t.Errorf("pairs are %s; want those of bob alone", list)
				}
			}
			apply(t, w.Kernel, nat.Entry{Inside: alice})
			wantSilence(t, w.host(t, 0, 7105), game.Outside, a)
			proofs, err := w.Reap(testContext(t), []netip.Addr{alice})
			if err != nil || len(proofs) != 1 || proofs[0].Deleted < 4 {
				t.Errorf("reaped: %+v, %v; want the sessions of four peers or more", proofs, err)
			}
			wantSessions(t, w.Kernel, alice, 0)
		})
	}
}

// staticElement is an element of a static map as nft prints it.
var staticElement = regexp.MustCompile(`\d : \d`)

// TestStaticElementsOfOthers: a start finds the mappings that stand; what others take out, add or
// change in one map or the other is told, and put right by the next Apply.
func TestStaticElementsOfOthers(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	withStatic(&o)
	ssh, dns := forward(unix.IPPROTO_TCP, 22, 61022), forward(unix.IPPROTO_UDP, 53, 61053)
	want := mappedTo(blockOf(alice, nat.GateOpen, 0), ssh, dns)
	first, err := dialAndStart(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, first, want)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	k := openKernel(t, o)
	wantEntries(t, k, want)
	others := newOthers(t, lab)
	in := func(f nat.Forward, to uint16) string {
		return fmt.Sprintf("element ip %s static_in { %s . %v . %d : %v . %d }", testTable, nat.ProtocolName(f.Protocol), f.Outside.Addr(), f.Outside.Port(), alice, to)
	}
	out := fmt.Sprintf("element ip %s static_out { tcp . %v . 22 }", testTable, alice)
	for what, script := range map[string]string{
		"an element of static_in taken out":  "delete element ip " + testTable + " static_in { tcp . " + eip.String() + " . 61022 }",
		"an element of static_out taken out": "delete " + out,
		"a mapping added":                    "add " + in(forward(unix.IPPROTO_TCP, 80, 61080), 80),
		"a mapping changed":                  "delete element ip " + testTable + " static_in { udp . " + eip.String() + " . 61053 }; add " + in(dns, 54),
		"a map flushed":                      "flush map ip " + testTable + " static_in",
		"an element for somebody offline":    "add element ip " + testTable + " static_in { tcp . " + eip.String() + " . 61099 : " + bob.String() + " . 80 }",
	} {
		others.nft(script)
		testenv.Succeeds(t, func() error {
			if err := k.Learn(testContext(t), nil); err != nil {
				return err
			}
			if got := entriesOf(t, k, 1000); slices.Equal(got, []nat.Entry{want}) {
				return fmt.Errorf("%s is not noticed", what)
			}
			return nil
		})
		apply(t, k, want, nat.Entry{Inside: bob})
		wantEntries(t, k, want)
		listed := run(t, lab, "nft", "list", "map", "ip", testTable, "static_in") + run(t, lab, "nft", "list", "map", "ip", testTable, "static_out")
		if n := len(staticElement.FindAllString(listed, -1)); n != 4 {
			t.Errorf("%s: the kernel has %d elements after the repair, want 4: %s", what, n, listed)
		}
	}
	for what, script := range map[string]string{"the table deleted": "delete table ip " + testTable, "everything flushed": "flush ruleset"} {
		others.nft(script)
		if err := k.Learn(testContext(t), nil); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, k, want)
		if listed := run(t, lab, "nft", "list", "map", "ip", testTable, "static_in"); len(staticElement.FindAllString(listed, -1)) != 2 {
			t.Errorf("%s: the kernel has %s", what, listed)
		}
	}
	if out := run(t, lab, "nft", "-j", "list", "ruleset"); !json.Valid([]byte(out)) || !strings.Contains(out, "static_out") {
		t.Errorf("nft -j list ruleset prints no JSON: %s", out)
	}
	if listed := run(t, lab, "nft", "list", "ruleset"); !strings.Contains(listed, "tcp . 198.51.100.1 . 61022 : 100.64.0.10 . 22") ||
		!strings.Contains(listed, "dnat ip to meta l4proto . ip daddr . tcp dport map @static_in") {
		t.Errorf("nft prints %s", listed)
	}
	if err := k.SetStatic(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, k, blockOf(alice, nat.GateOpen, 0))
	if listed := run(t, lab, "nft", "list", "ruleset"); strings.Contains(listed, "static") {
		t.Errorf("without static ports nft prints %s", listed)
	}
}

// TestStaticCostsNothingWithoutPorts: a table without static ports has no rule, chain or set of
// theirs, and one with them has as many rules for one mapping as for many.
func TestStaticCostsNothingWithoutPorts(t *testing.T) {
	o := Options{Table: testTable, InsideInterfaces: []string{"s0"}, OutsideInterfaces: []string{"i0"}, Timeouts: testTimeouts}
	without := newRuleset(o)
	withStatic(&o)
	with := newRuleset(o)
	if n := len(with.rules) - len(without.rules); n != 5 {
		t.Errorf("static ports add %d rules, want 2 in, 2 out, and 1 between subscribers", n)
	}
	fullCone(&o)
	withStatic(&o)
	both := newRuleset(o)
	o.Static = nil
	if n := len(both.rules) - len(newRuleset(o).rules); n != 9 {
		t.Errorf("static ports add %d rules beside learned mappings, want 4 more", n)
	}
	for _, s := range without.sets {
		if strings.HasPrefix(s.name, "static") {
			t.Errorf("set %s is there without ports", s.name)
		}
	}
}

// manyForwards returns entries with mappings, four of each.
func manyForwards(mappings int) []nat.Entry {
	entries := crowd(64, mappings/4)
	for i := range entries {
		var list []nat.Forward
		for j := range 4 {
			n := 4*i + j
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(n / 20_000)}), uint16(40_000+n%20_000))
			list = append(list, nat.Forward{Protocol: unix.IPPROTO_TCP, InsidePort: nat.Port(80 + j), Outside: at})
		}
		entries[i].Forwards = nat.NewForwards(list)
	}
	return entries
}

// BenchmarkStatic programs mappings, four of each subscriber, in the transactions that open
// their gates, and reads them: by keys, as a start does, and whole, as after changes of others
// that are not known.
func BenchmarkStatic(b *testing.B) {
	for _, mappings := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("mappings=%d", mappings), func(b *testing.B) {
			lab := newLab(b)
			o := labOptions(lab)
			o.Static = []StaticPorts{{Outside: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, First: 40_000, Last: 60_000}}
			entries := manyForwards(mappings)
			closed := make([]nat.Entry, len(entries))
			for i := range entries {
				closed[i].Inside = entries[i].Inside
			}
			k := openKernel(b, o)
			var programming, reading, dumping, cutting time.Duration
			for b.Loop() {
				start := time.Now()
				if err := k.Apply(b.Context(), entries); err != nil {
					b.Fatal(err)
				}
				programming += time.Since(start)
				var expected []nat.Endpoint
				for i := range entries {
					for f := range entries[i].Forwards.All() {
						expected = append(expected, f.Endpoint())
					}
				}
				for _, by := range []*time.Duration{&reading, &dumping} {
					k.known.static.clear()
					k.known.static.unknown = true
					if by == &reading {
						k.ExpectStatic(expected)
					}
					start = time.Now()
					if err := k.known.ensureStatic(b.Context()); err != nil || len(k.known.static.in) != mappings {
						b.Fatal(err, len(k.known.static.in))
					}
					*by += time.Since(start)
				}
				start = time.Now()
				if err := k.Apply(b.Context(), closed); err != nil {
					b.Fatal(err)
				}
				cutting += time.Since(start)
			}
			n := float64(b.N)
			b.ReportMetric(programming.Seconds()/n, "s/program")
			b.ReportMetric(reading.Seconds()/n, "s/read")
			b.ReportMetric(dumping.Seconds()/n, "s/dump")
			b.ReportMetric(cutting.Seconds()/n, "s/cut")
			b.ReportMetric(0, "ns/op")
		})
	}
}
