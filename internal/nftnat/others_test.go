package nftnat

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestOtherRules reads back the rules that nft and iptables-nft make, with their effects and
// conditions. Those of the own table, of IPv6, and those without an effect are not among them.
func TestOtherRules(t *testing.T) {
	testenv.Require(t, testenv.Iptables)
	t.Parallel()
	lab := newLab(t)
	prefix := netip.MustParsePrefix
	rules := []struct {
		text string
		want OtherRule // without its place
	}{
		{`oifname "i0" masquerade`, OtherRule{Translates: true, Output: "i0"}},
		{`ip saddr 172.17.0.0/16 oifname != "docker0" masquerade`, OtherRule{Translates: true, Source: prefix("172.17.0.0/16"), Narrow: true}},
		{`ip saddr 100.64.0.0/10 snat ip to 198.51.100.9`, OtherRule{Translates: true, Source: prefix("100.64.0.0/10")}},
		{`ip saddr 10.1.2.3 counter masquerade`, OtherRule{Translates: true, Source: prefix("10.1.2.3/32")}},
		{`ip saddr 10.0.0.0/8 iifname "vlan*" masquerade`, OtherRule{Translates: true, Source: prefix("10.0.0.0/8"), Input: "vlan*"}},
		{`ip saddr { 10.0.0.1, 10.0.0.2 } masquerade`, OtherRule{Translates: true, Narrow: true}},
		{`ip daddr 10.0.0.0/8 masquerade`, OtherRule{Translates: true, Narrow: true}},
		{`meta mark 7 accept`, OtherRule{Accepts: true, Narrow: true}},
		{`ct state established,related accept`, OtherRule{Accepts: true, Narrow: true}},
		{`iifname "s0" counter accept`, OtherRule{Accepts: true, Input: "s0"}},
		{`meta l4proto tcp jump other`, OtherRule{Jumps: true, Narrow: true}},
		{`meta mark set 7 accept`, OtherRule{Accepts: true}},
	}
	var table strings.Builder
	table.WriteString("table inet t {\n\tchain other { counter; }\n\tchain post { type nat hook postrouting priority 90; policy drop;\n")
	for _, r := range rules {
		table.WriteString("\t\t" + r.text + "\n")
	}
	table.WriteString("\t}\n\tchain pre { type filter hook prerouting priority -300; notrack; ct event set destroy; drop; }\n}\ntable ip6 six {\n\tchain post { type nat hook postrouting priority 0; masquerade; }\n}\n")
	run(t, lab, "nft", table.String())
	run(t, lab, "iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "100.64.0.0/10", "-o", "i0", "-j", "MASQUERADE")
	run(t, lab, "iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.0/24", "-j", "SNAT", "--to-source", "198.51.100.9")
	startKernel(t, labOptions(lab))

	ns, err := netns.Open(lab.CGN.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	o, err := ReadOthers(testContext(t), ns, labOptions(lab).Table)
	if err != nil {
		t.Fatal(err)
	}
	if !o.Own {
		t.Error("the own table is not there")
	}
	want := []OtherRule{}
	for _, r := range rules {
		r.want.Family, r.want.Table, r.want.Chain = "inet", "t", "post"
		want = append(want, r.want)
	}
	pre := OtherRule{Family: "inet", Table: "t", Chain: "pre"}
	untracked, quiet := pre, pre
	untracked.Untracked, quiet.Quiet = true, true
	want = append(want, untracked, quiet)
	of := OtherRule{Family: "ip", Table: "nat", Chain: "POSTROUTING", Translates: true}
	masquerade, source := of, of
	masquerade.Source, masquerade.Output, source.Source = prefix("100.64.0.0/10"), "i0", prefix("192.0.2.0/24")
	want = append(want, masquerade, source)
	for _, r := range o.Rules {
		if r.Handle == 0 {
			t.Errorf("%+v has no handle", r)
		}
		r.Handle = 0
		i := slices.Index(want, r)
		if i < 0 {
			t.Errorf("%+v is there, and not wanted", r)
			continue
		}
		want = slices.Delete(want, i, i+1)
	}
	for _, r := range want {
		t.Errorf("%+v is not there", r)
	}
	chain := OtherChain{Family: "inet", Table: "t", Name: "post", Type: "nat", Hook: "postrouting", Priority: 90, PolicyDrop: true}
	if !slices.Contains(o.Chains, chain) || slices.ContainsFunc(o.Chains, func(c OtherChain) bool { return c.Table == labOptions(lab).Table || c.Name == "other" }) {
		t.Errorf("chains %+v", o.Chains)
	}
}

// TestOtherFlowtables reads back an operator's flowtable, and the rule that adds flows to it.
func TestOtherFlowtables(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	flowtables := 0 // on a kernel without them there are none to find
	if hasFlowtables(t, lab) {
		run(t, lab, "nft", netlab.OperatorsFlowtable)
		flowtables = 1
	}
	ns, err := netns.Open(lab.CGN.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	o, err := ReadOthers(testContext(t), ns, "sessiond")
	if err != nil || o.Own || len(o.Flowtables) != flowtables || len(o.Rules) != flowtables {
		t.Fatalf("%+v, %v", o, err)
	}
	if flowtables == 0 {
		return
	}
	f, r := o.Flowtables[0], o.Rules[0]
	if f.Family != "inet" || f.Table != "fast" || f.Name != "ft" || !slices.Equal(f.Devices, []string{"i0", "s0"}) || f.Hardware || r.Flowtable != "ft" || r.Chain != "forward" {
		t.Errorf("%+v", o)
	}
}

// FuzzOtherRule: no octets from the kernel's socket make the reader fail.
func FuzzOtherRule(f *testing.F) {
	f.Add([]byte{12, 0, 1, 0, 't', 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, attrs []byte) {
		r, ok := parseOtherRule(attrs)
		if ok != (r.Translates || r.Untracked || r.Quiet || r.Flowtable != "" || r.Accepts || r.Jumps) {
			t.Errorf("%t: %+v", ok, r)
		}
		if r.Source.IsValid() && r.Source != r.Source.Masked() {
			t.Errorf("source %v", r.Source)
		}
		parseBaseChain(attrs)
	})
}

// TestProbe: the kernel of a test lacks nothing, what it lacks is named, and nothing is made in the
// namespace of the caller or of the NAT.
func TestProbe(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	o := labOptions(lab)
	lacking, err := Probe(testContext(t), o)
	if err != nil || len(lacking) > 0 {
		t.Errorf("lacks %v, %v", lacking, err)
	}
	if list := run(t, lab, "nft", "list", "tables"); strings.Contains(list, o.Table) {
		t.Errorf("tables of the NAT's namespace: %s", list)
	}
	o.Table = ""
	if lacking, err := Probe(testContext(t), o); err != nil || len(lacking) == 0 {
		t.Errorf("options without a table: %v, %v", lacking, err)
	}
}
