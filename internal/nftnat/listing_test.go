package nftnat

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

func TestNftPrintsTheTable(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))

	ruleset := run(t, lab, "nft", "list", "ruleset")
	for _, want := range []string{
		"100.64.0.10 : 198.51.100.1 . 1024-1535",
		"100.64.0.11 : 198.51.100.1 . 1536-2047",
		"100.64.0.10 : return",
		"100.64.0.11 : goto draining",
		"snat ip to ip saddr map @block",
		"elements = { 100.64.0.0/10 }",
		`"i0"`, "udp-300",
		`counter name "drop_no_gate_out" drop comment "no open gate"`,
		`comment "` + nat.Drop{Reason: nat.DropNoGate, Direction: nat.DropOut}.Meaning() + `"`,
		`comment "` + chainComments[chainLeaving] + `"`, `comment "` + setComments[mapGate] + `"`,
	} {
		if !strings.Contains(ruleset, want) {
			t.Errorf("nft list ruleset lacks %q:\n%s", want, ruleset)
		}
	}
	if out := run(t, lab, "nft", "-j", "list", "ruleset"); !json.Valid([]byte(out)) {
		t.Errorf("nft -j list ruleset prints no JSON: %s", out)
	}
	if out := run(t, lab, "nft", "list", "map", "ip", testTable, mapBlock); !strings.Contains(out, "1024-1535") {
		t.Errorf("nft list map prints no block: %s", out)
	}
}

// TestTheTableExplainsItself: each chain and set has a comment, each drop a counter of its own
// that is listed, and each counter a drop.
func TestTheTableExplainsItself(t *testing.T) {
	inside := []netip.Prefix{limitedPrefix}
	o := Options{
		Table: testTable, InsideInterfaces: []string{"s0", "ppp*"}, OutsideInterfaces: []string{"i0"}, Timeouts: testTimeouts, MaxUngated: 1000,
		Limits:        limitsOf(nat.Limits{Sessions: 1000, NewSessionsPerSecond: 100, TCPPorts: 100, UDPPorts: 100}),
		NoNAT:         []nat.NoNAT{{Inside: inside, Remote: netip.MustParsePrefix("203.0.113.0/24"), Last: 65535}},
		GroupTimeouts: []nat.GroupTimeouts{{Inside: inside, Ports: []nat.PortTimeout{{Protocol: unix.IPPROTO_UDP, Port: 53, Timeout: 10 * time.Second}}}},
	}
	fullCone(&o)
	withStatic(&o)
	pinned(&o)
	o.PCP.On = true
	r := newRuleset(o)
	for _, c := range r.chains {
		ofPolicy := slices.ContainsFunc(r.policies, func(p policy) bool { return p.name == c.name })
		if !ofPolicy && chainComments[c.name] == "" {
			t.Errorf("chain %s has no comment", c.name)
		}
	}
	for _, s := range append(r.sets, unusedMark) {
		if setComments[s.name] == "" {
			t.Errorf("set %s has no comment", s.name)
		}
	}
	used := map[string]bool{}
	for _, x := range r.rules {
		for i, e := range x.exprs {
			if v, ok := e.(*expr.Verdict); !ok || v.Kind != expr.VerdictDrop {
				continue
			}
			counts, ok := x.exprs[i-1].(*expr.Objref)
			if !ok || counts.Type != unix.NFT_OBJECT_COUNTER || x.comment == "" {
				t.Errorf("chain %s drops without counter or comment: %+v", x.chain, x)
				continue
			}
			used[counts.Name] = true
		}
	}
	for _, c := range r.counters {
		if !used[c.name] {
			t.Errorf("no rule counts %s", c.name)
		}
		delete(used, c.name)
	}
	for name := range used {
		t.Errorf("a rule counts %s, which the table lacks", name)
	}
}

// TestSavedTableIsAdopted saves the ruleset with nft, as an operator does into
// /etc/nftables.conf, and restores it, which loses the marks of rules. A table of an
// earlier version had an object that nft refuses; it is gone after the start.
func TestSavedTableIsAdopted(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))
	want := withoutHandles(ruleHandles(t, lab))
	var b wire.Batch
	earlier := newRuleset(k.options)
	earlier.policies = []policy{newPolicy("icmp", unix.IPPROTO_ICMP, []time.Duration{time.Minute}, time.Minute)}
	earlier.addPolicy(earlier.policies[0], &b)
	assigned := rule{chainTimeouts, "", then(protocolIs(unix.IPPROTO_ICMP), assign(earlier.policies[0].name))}
	if err := earlier.addRule(assigned, &b); err != nil {
		t.Fatal(err)
	}
	if err := k.conn.Commit(testContext(t), &b); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "add table inet operator")
	openKernel(t, labOptions(lab))
	saved := run(t, lab, "nft", "list", "ruleset")
	file := filepath.Join(t.TempDir(), "saved.nft")
	if err := os.WriteFile(file, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "flush", "ruleset")
	run(t, lab, "nft", "-f", file)
	if tables := run(t, lab, "nft", "list", "tables"); !strings.Contains(tables, "operator") || !strings.Contains(tables, testTable) {
		t.Errorf("tables after the load are %s", tables)
	}
	run(t, lab, "nft", "delete table inet operator")
	again := openKernel(t, labOptions(lab))
	wantEntries(t, again, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateDraining, 1))
	if got := withoutHandles(ruleHandles(t, lab)); got != want {
		t.Errorf("table is\n%s\nwant\n%s", got, want)
	}
}
