package nftnat

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/testenv"
)

const foreignTable = `
table inet foreign {
	set s { type ipv4_addr; elements = { 192.0.2.1 }; }
	chain c { type filter hook forward priority 0; policy accept; ip saddr @s counter; }
}`

func addForeignTable(t *testing.T, lab *netlab.Lab) (list func() string) {
	t.Helper()
	run(t, lab, "nft", foreignTable)
	return func() string { return run(t, lab, "nft", "-a", "list", "table", "inet", "foreign") }
}

// ruleHandles returns nft's listing of the table, with the handles, which show whether
// anything was made anew, and without the counters, which packets change.
func ruleHandles(t *testing.T, lab *netlab.Lab) string {
	t.Helper()
	return withoutCounts(run(t, lab, "nft", "-a", "list", "table", "ip", testTable))
}

func TestStandingTableIsAdopted_SES19_I7_I9(t *testing.T) {
	lab := newLab(t)
	first := openKernel(t, labOptions(lab))
	apply(t, first, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))
	before := ruleHandles(t, lab)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if after := ruleHandles(t, lab); after != before {
		t.Errorf("Close changed the table:\n%s\nto\n%s", before, after)
	}
	second := openKernel(t, labOptions(lab))
	if after := ruleHandles(t, lab); after != before {
		t.Errorf("adoption changed the table:\n%s\nto\n%s", before, after)
	}
	wantEntries(t, second, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))
	apply(t, second, nat.Entry{Inside: alice}, blockOf(bob, nat.GateOpen, 1))
	wantEntries(t, second, blockOf(bob, nat.GateOpen, 1))
}

// TestTamperedTableIsPutRight damages a table in every possible way, and opens it.
func TestTamperedTableIsPutRight(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	k := openKernel(t, o)
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	want := withoutHandles(ruleHandles(t, lab))
	made := regexp.MustCompile(`table ip sessiond \{ # handle \d+`).FindString(ruleHandles(t, lab))
	for name, script := range map[string]string{
		"rule added":          "add rule ip sessiond upstream accept",
		"rule inserted":       "insert rule ip sessiond upstream accept",
		"chain flushed":       "flush chain ip sessiond output",
		"chain added":         "add chain ip sessiond extra { type filter hook forward priority -1; policy drop; }",
		"policy changed":      "add chain ip sessiond forward { type filter hook forward priority 0; policy drop; }",
		"chain of other hook": "flush chain ip sessiond output; delete chain ip sessiond output; add chain ip sessiond output { type filter hook input priority 0; }",
		"table dormant":       "add table ip sessiond { flags dormant; }",
		"prefix removed":      "flush set ip sessiond inside_prefixes",
		"interface added":     `add element ip sessiond inside_interfaces { "evil0" }`,
		"protocol added":      "add element ip sessiond protocols { 47 }",
	} {
		t.Run(name, func(t *testing.T) {
			run(t, lab, "nft", script)
			again := openKernel(t, o)
			if got := withoutHandles(ruleHandles(t, lab)); got != want {
				t.Errorf("table is\n%s\nwant\n%s", got, want)
			}
			wantEntries(t, again, blockOf(alice, nat.GateOpen, 0))
			if !strings.HasPrefix(ruleHandles(t, lab), made) {
				t.Error("the whole table was made anew")
			}
		})
	}
}

// TestManyPools: a start beside thousands of routes that stand looks at them once, not once
// for each, and tells of the one that is somebody else's.
func TestManyPools(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	var told logLines
	o.Logger = told.logger()
	for i := range 5000 {
		o.OutsidePrefixes = append(o.OutsidePrefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 6), byte(i<<2) | 1}), 32))
	}
	run(t, lab, "ip", "route", "add", "unreachable", "198.18.0.1/32")
	openKernel(t, o)
	began := time.Now()
	openKernel(t, o)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a start beside its own 5,000 routes takes %v", took)
	}
	if got := strings.Count(told.String(), "foreign route in place of a blackhole"); got != 2 {
		t.Errorf("a foreign route is told of %d times in two starts: %s", got, told.String())
	}
}

// TestChainsOfOthersThatAreUsed has others add chains to the table that cannot be deleted,
// since a map of theirs, or an element that they put into ours, leads there. The rule that
// they added with it, which lets everybody pass, is gone at once all the same, and
// subscribers keep what they have.
func TestChainsOfOthersThatAreUsed_I3(t *testing.T) {
	for name, script := range map[string]string{
		"by a map of theirs": "add map ip sessiond theirs { type ipv4_addr : verdict; }; add element ip sessiond theirs { 192.0.2.1 : jump extra }",
		"by an element":      "add element ip sessiond gate { 100.64.9.9 : jump extra }",
	} {
		t.Run(name, func(t *testing.T) {
			lab := newLab(t)
			k := startKernel(t, labOptions(lab))
			apply(t, k, blockOf(alice, nat.GateOpen, 0))
			want := withoutHandles(ruleHandles(t, lab))
			run(t, lab, "nft", "add chain ip sessiond extra; add rule ip sessiond extra accept; insert rule ip sessiond forward accept; "+script)
			testenv.Succeeds(t, func() error {
				if got := withoutHandles(ruleHandles(t, lab)); got != want {
					return fmt.Errorf("table is\n%s\nwant\n%s", got, want)
				}
				return nil
			})
			apply(t, k, blockOf(bob, nat.GateOpen, 1))
			wantEntries(t, k, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
		})
	}
}

// TestVerdictOfOthersOpensNobody_I3: an element of the gate with a foreign verdict is not put
// back when the table is made anew.
func TestVerdictOfOthersOpensNobody_I3(t *testing.T) {
	lab := newLab(t)
	k := startKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	run(t, lab, "nft", "add element ip sessiond gate { 100.64.9.9 : accept }")
	testenv.Succeeds(t, func() error {
		if g := k.known.at(address{100, 64, 9, 9}).gate; g != foreign {
			return fmt.Errorf("the gate is taken for %v", g)
		}
		return nil
	})
	run(t, lab, "nft", "flush ruleset")
	testenv.Succeeds(t, func() error {
		switch gate := run(t, lab, "sh", "-c", "nft list map ip sessiond gate 2>&1 || true"); {
		case strings.Contains(gate, "100.64.9.9"):
			t.Fatalf("it is put back: %s", gate)
		case !strings.Contains(gate, alice.String()+" : return"):
			return fmt.Errorf("alice's is not put back: %s", gate)
		}
		return nil
	})
}

// withoutHandles makes tables comparable: without handles, and with the chains,
// which the kernel lists in the order they were made, sorted.
func withoutHandles(s string) string {
	s = regexp.MustCompile(` # handle \d+`).ReplaceAllString(s, "")
	parts := strings.Split(strings.TrimSuffix(s, "}\n"), "\n\n")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n\n")
}

// A map of another shape, as another version of sessiond may have made it.
func TestTableOfOtherShapeIsMadeAnew(t *testing.T) {
	lab := newLab(t)
	run(t, lab, "nft", `table ip sessiond {
		map gate { type ipv4_addr : verdict; elements = { 100.64.0.10 : return }; }
		map block { type ipv4_addr : ipv4_addr; elements = { 100.64.0.10 : 198.51.100.1 }; }
		chain old { type filter hook forward priority 0; policy drop; }
	}`)
	k := openKernel(t, labOptions(lab))
	wantEntries(t, k, nat.Entry{Inside: alice, Gate: nat.GateOpen}) // the block could not be read
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	wantEntries(t, k, blockOf(alice, nat.GateOpen, 0))
	if out := run(t, lab, "nft", "list", "table", "ip", testTable); strings.Contains(out, "old") {
		t.Errorf("old chain is left: %s", out)
	}
}

func TestForeignObjectsStay_I8(t *testing.T) {
	lab := newLab(t)
	foreignList := addForeignTable(t, lab)
	before := foreignList()
	run(t, lab, "ip", "route", "add", "blackhole", "192.0.2.0/24")
	run(t, lab, "ip", "route", "add", "blackhole", "198.51.100.0/28", "proto", "static")
	routes := run(t, lab, "ip", "route")
	links := run(t, lab, "ip", "-o", "addr")

	k := openKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	inside := []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}
	if err := k.SetPrefixes(testContext(t), inside, []netip.Prefix{pool, netip.MustParsePrefix("203.0.114.0/24")}, Mappings{}); err != nil {
		t.Fatal(err)
	}
	if out := run(t, lab, "ip", "route", "list", "proto", fmt.Sprint(RouteProtocol)); out != "blackhole 203.0.114.0/24 \n" {
		t.Errorf("own routes are %q", out)
	}
	if err := k.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if after := foreignList(); after != before {
		t.Errorf("foreign table is\n%s\nwant\n%s", after, before)
	}
	if after := run(t, lab, "ip", "route"); after != routes {
		t.Errorf("routes are\n%s\nwant\n%s", after, routes)
	}
	if after := run(t, lab, "ip", "-o", "addr"); after != links {
		t.Errorf("addresses are\n%s\nwant\n%s", after, links)
	}
	if out := run(t, lab, "nft", "list", "tables"); out != "table inet foreign\n" {
		t.Errorf("tables left: %q", out)
	}
	if err := k.Apply(testContext(t), nil); err == nil {
		t.Error("Apply after Remove succeeded")
	}
}

func TestRetiredPoolLosesItsRoute(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	old := netip.MustParsePrefix("198.51.100.64/28")
	o.OutsidePrefixes = append(o.OutsidePrefixes, old)
	openKernel(t, o)
	if out := run(t, lab, "ip", "route"); !strings.Contains(out, "blackhole "+old.String()) {
		t.Fatalf("no blackhole route: %s", out)
	}
	openKernel(t, labOptions(lab))
	out := run(t, lab, "ip", "route")
	if strings.Contains(out, old.String()) || !strings.Contains(out, "blackhole "+pool.String()) {
		t.Errorf("routes are %s", out)
	}
}

// TestDeletedRouteComesBack deletes the blackhole route under a running Kernel.
func TestDeletedRouteComesBack(t *testing.T) {
	lab := newLab(t)
	k := startKernel(t, labOptions(lab))
	run(t, lab, "ip", "route", "del", "blackhole", pool.String())
	if err := k.check(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	if out := run(t, lab, "ip", "route"); !strings.Contains(out, "blackhole "+pool.String()) {
		t.Errorf("routes are %s", out)
	}
}

// TestDeletedTableComesBack deletes all of nftables under a running Kernel, as
// a restart of the distribution's nftables service does.
func TestDeletedTableComesBack(t *testing.T) {
	lab := newLab(t)
	k := startKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))
	want := withoutHandles(ruleHandles(t, lab))
	check := func(t *testing.T) {
		t.Helper()
		testenv.Succeeds(t, func() error {
			out, err := lab.CGN.NftList(testContext(t))
			if err == nil && !strings.Contains(out, "table ip sessiond") {
				err = errors.New("the table is gone")
			}
			return err
		})
		if got := withoutHandles(ruleHandles(t, lab)); got != want {
			t.Errorf("table is\n%s\nwant\n%s", got, want)
		}
	}
	t.Run("by itself", func(t *testing.T) {
		run(t, lab, "nft", "flush", "ruleset")
		check(t)
	})
	t.Run("by Apply", func(t *testing.T) {
		run(t, lab, "nft", "flush", "ruleset")
		apply(t, k, nat.Entry{Inside: netip.MustParseAddr("100.64.9.9")}, blockOf(bob, nat.GateOpen, 1))
		apply(t, k, blockOf(bob, nat.GateDraining, 1))
		check(t)
	})
	t.Run("by Learn", func(t *testing.T) {
		run(t, lab, "nft", "flush", "ruleset")
		wantEntries(t, k, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))
		check(t)
	})
}

func TestForeignChangesOfElements(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		want   []nat.Entry // as LearnRest finds them
	}{
		"gate deleted":  {"delete element ip sessiond gate { 100.64.0.10 }", []nat.Entry{{Inside: alice, Block: nat.Block{Outside: eip, First: 1024, Last: 1535}}}},
		"block deleted": {"delete element ip sessiond block { 100.64.0.10 }", []nat.Entry{{Inside: alice, Gate: nat.GateOpen}}},
		"both deleted":  {"flush map ip sessiond gate; flush map ip sessiond block", nil},
		"gate replaced": {
			"delete element ip sessiond gate { 100.64.0.10 }; add element ip sessiond gate { 100.64.0.10 : accept }",
			[]nat.Entry{{Inside: alice, Block: nat.Block{Outside: eip, First: 1024, Last: 1535}}},
		},
		"block replaced": {
			"delete element ip sessiond block { 100.64.0.10 }; add element ip sessiond block { 100.64.0.10 : 198.51.100.2 . 2048-2050 }",
			[]nat.Entry{{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: netip.MustParseAddr("198.51.100.2"), First: 2048, Last: 2050}}},
		},
		"stranger added": {
			"add element ip sessiond gate { 100.64.0.9 : return }",
			[]nat.Entry{{Inside: netip.MustParseAddr("100.64.0.9"), Gate: nat.GateOpen}, blockOf(alice, nat.GateOpen, 0)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := newLab(t)
			k := openKernel(t, labOptions(lab))
			apply(t, k, blockOf(alice, nat.GateOpen, 0))
			run(t, lab, "nft", tc.script)
			apply(t, k, blockOf(alice, nat.GateDraining, 3)) // without a notice of the deletion
			apply(t, k, blockOf(netip.MustParseAddr("100.64.0.9"), nat.GateOpen, 4))
			wantEntries(t, k, blockOf(netip.MustParseAddr("100.64.0.9"), nat.GateOpen, 4), blockOf(alice, nat.GateDraining, 3))

			apply(t, k, blockOf(alice, nat.GateOpen, 0), nat.Entry{Inside: netip.MustParseAddr("100.64.0.9")})
			run(t, lab, "nft", tc.script)
			wantEntries(t, k, tc.want...)
			apply(t, k, nat.Entry{Inside: alice}, nat.Entry{Inside: netip.MustParseAddr("100.64.0.9")})
			wantEntries(t, k)
		})
	}
}

func TestKernelErrorNamesTheOperation(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	var b wire.Batch
	b.Add(wire.DelChain, wire.Op{Verb: "delete chain", Object: "fine"}, func(dst []byte) []byte { return dst })
	b.Reset()
	newRuleset(k.options).addTable(&b)
	(&ruleset{table: "nowhere"}).addChain(chain{name: "c"}, &b)
	err := k.conn.Commit(testContext(t), &b)
	var at *wire.Error
	if !errors.As(err, &at) || at.Op != (wire.Op{Verb: "add chain", Object: "c"}) || !errors.Is(err, unix.ENOENT) {
		t.Errorf("error is %v, want one about chain c", err)
	}
	apply(t, k, blockOf(alice, nat.GateOpen, 0)) // the connection goes on
}

func TestForwardingOffIsWarnedOf(t *testing.T) {
	lab := newLab(t)
	for value, want := range map[string]bool{"0": true, "1": false} {
		run(t, lab, "sysctl", "-qw", "net.ipv4.ip_forward="+value)
		var lines logLines
		o := labOptions(lab)
		o.Logger = slog.New(slog.NewTextHandler(&lines, nil))
		openKernel(t, o)
		if got := strings.Contains(lines.String(), "ip_forward is off"); got != want {
			t.Errorf("ip_forward=%s: warned is %t, log is %s", value, got, lines.String())
		}
		if out := run(t, lab, "sysctl", "-n", "net.ipv4.ip_forward"); out != value+"\n" {
			t.Errorf("ip_forward is %q afterwards", out)
		}
	}
}

func TestOptionsNameTheBadField(t *testing.T) {
	for field, spoil := range map[string]func(*Options){
		"Table":             func(o *Options) { o.Table = "" },
		"OutsideInterfaces": func(o *Options) { o.OutsideInterfaces = nil },
		"InsidePrefixes":    func(o *Options) { o.InsidePrefixes = nil },
		"Logger":            func(o *Options) { o.Logger = nil },
		"Timeouts.UDP":      func(o *Options) { o.Timeouts.UDP = 0 },
		"2001:db8::/32":     func(o *Options) { o.OutsidePrefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")} },
		"listed twice":      func(o *Options) { o.InsideInterfaces = o.OutsideInterfaces },
		"15 bytes":          func(o *Options) { o.InsideInterfaces = []string{"sixteen-bytes-it"} },
	} {
		o := labOptions(&netlab.Lab{CGN: netlab.Current()})
		spoil(&o)
		if _, err := dialAndStart(t.Context(), o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error is %v", field, err)
		}
	}
	o := labOptions(&netlab.Lab{CGN: netlab.Current()})
	o.NetNS = "no-such-namespace"
	if _, err := dialAndStart(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.NetNS) {
		t.Errorf("namespace: error is %v", err)
	}
}

// TestFlowsGoOn_I9 has a flow in use while sessiond ends, starts again, and replaces its
// rules.
func TestFlowsGoOn_I9(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	f, err := lab.OpenFlow(testContext(t), netip.AddrPortFrom(alice, 0))
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if out, in := f.Probe(5 * time.Second); !out || !in {
			t.Errorf("%s: out %t, in %t", when, out, in)
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	check("after Close")
	k = openKernel(t, labOptions(lab))
	check("after adoption")
	changed := testTimeouts
	changed.UDP = 600 * time.Second
	if err := k.SetTimeouts(testContext(t), changed); err != nil {
		t.Fatal(err)
	}
	check("after SetTimeouts")
	run(t, lab, "nft", "add", "rule", "ip", testTable, chainUpstream, "accept")
	openKernel(t, labOptions(lab))
	check("after the rules were replaced")
}

// TestOneTransaction_DEL12 counts transactions by the generation of nftables.
func TestOneTransaction_DEL12(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	entries := make([]nat.Entry, 10_000)
	for i := range entries {
		entries[i] = blockOf(netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}), nat.GateOpen, i%100)
	}
	wantTransactions := func(want uint32, do func()) {
		t.Helper()
		before, err := k.readGeneration(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		do()
		after, err := k.readGeneration(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if after-before != want {
			t.Errorf("%d transactions, want %d", after-before, want)
		}
	}
	wantTransactions(1, func() { apply(t, k, entries...) })
	wantTransactions(0, func() { apply(t, k, entries...) })
	for i := range entries {
		entries[i].Gate = nat.GateClosed
	}
	wantTransactions(1, func() { apply(t, k, append(entries, blockOf(alice, nat.GateOpen, 0))...) })
	wantTransactions(0, func() { openKernel(t, labOptions(lab)) })
}

// TestApplyFromManySides programs from several goroutines while others read.
func TestApplyFromManySides(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	var want []nat.Entry
	var tasks errgroup.Group
	for i := range 8 {
		inside := netip.AddrFrom4([4]byte{100, 64, 7, byte(i)})
		want = append(want, blockOf(inside, nat.GateDraining, i))
		tasks.Go(func() error {
			var errs []error
			for range 20 {
				errs = append(errs, k.Apply(t.Context(), []nat.Entry{blockOf(inside, nat.GateOpen, i)}),
					k.Apply(t.Context(), []nat.Entry{{Inside: inside}}))
				errs = append(errs, k.LearnRest(t.Context()))
			}
			return errors.Join(append(errs, k.Apply(t.Context(), []nat.Entry{blockOf(inside, nat.GateDraining, i)}))...)
		})
	}
	if err := tasks.Wait(); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, k, want...)
}

// TestProgrammed_NAT30: a start distinguishes a table that no start ever programmed from one
// that was programmed, and is empty by now: its ports may be in quarantine.
func TestProgrammed_NAT30(t *testing.T) {
	lab := newLab(t)
	opened := func() *Kernel { return openKernel(t, labOptions(lab)) }
	for _, step := range []struct {
		name   string
		before func(k *Kernel)
		want   bool
	}{
		{"made", func(*Kernel) {}, false},
		{"made by an earlier start", func(*Kernel) {}, false},
		{"changed in its rules, and applied nothing", func(k *Kernel) {
			apply(t, k, nat.Entry{Inside: alice})
			if err := k.SetTimeouts(t.Context(), labOptions(lab).Timeouts); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"deleted while unused", func(k *Kernel) {
			run(t, lab, "nft", "delete table ip sessiond")
			if err := k.Learn(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"programmed", func(k *Kernel) { apply(t, k, blockOf(alice, nat.GateOpen, 0)) }, true},
		{"emptied", func(k *Kernel) { apply(t, k, nat.Entry{Inside: alice}) }, true},
		{"deleted since, and made again", func(k *Kernel) {
			run(t, lab, "nft", "delete table ip sessiond")
			if err := k.Learn(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		k := opened()
		step.before(k)
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		k = opened()
		if got := k.Programmed(); got != step.want {
			t.Errorf("%s: programmed %t, want %t\n%s", step.name, got, step.want, run(t, lab, "nft", "list", "table", "ip", testTable))
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestElementsBehindTheMark_NAT30: a table with the mark and elements of others counts as
// programmed.
func TestElementsBehindTheMark_NAT30(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "add element ip sessiond gate { 100.64.0.10 : accept }")
	if k = openKernel(t, labOptions(lab)); !k.Programmed() {
		t.Error("a table with elements counts as never programmed")
	}
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	wantEntries(t, k, blockOf(alice, nat.GateOpen, 0))
}

// TestMarkDeleted: deleting the mark by hand makes no later call fail.
func TestMarkDeleted(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	run(t, lab, "nft", "delete set ip sessiond unused")
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	wantEntries(t, k, blockOf(alice, nat.GateOpen, 0))
}
