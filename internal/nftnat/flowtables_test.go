package nftnat

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"github.com/sessiond/sessiond/internal/testenv"
	"golang.org/x/sys/unix"
)

// hasFlowtables reports whether the kernel takes an operator's flowtable.
func hasFlowtables(t *testing.T, lab *netlab.Lab) bool {
	t.Helper()
	_, err := lab.CGN.Output(testContext(t), "nft", netlab.OperatorsFlowtable)
	if err == nil {
		run(t, lab, "nft", "delete table inet fast")
	}
	return err == nil
}

// TestOwnFlowtable: the table has a flowtable of the present interfaces, which follows those
// that come and go, also where a start finds the table of another mode. A kernel without
// flowtables refuses the start, says so, and keeps the table that it has.
func TestOwnFlowtable(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.InsideInterfaces = append(o.InsideInterfaces, "vlan*")
	before := openKernel(t, o)
	apply(t, before, blockOf(alice, nat.GateOpen, 0))
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	listed := func() string { return run(t, lab, "nft", "list", "table", "ip", testTable) }
	o.Flowtables = OwnFlowtable
	if !hasFlowtables(t, lab) {
		was := listed()
		_, err := dialAndStart(testContext(t), o)
		if !errors.Is(err, errNoFlowtables) || !strings.Contains(err.Error(), "modprobe -a nf_flow_table") {
			t.Errorf("a kernel without flowtables: %v", err)
		}
		if is := listed(); is != was {
			t.Errorf("the refused start changed the table from\n%s\nto\n%s", was, is)
		}
		return
	}
	t.Run("own", func(t *testing.T) { ownFlowtable(t, lab, o, listed) })
	o.Flowtables = RefuseFlowtables
	openKernel(t, o)
	if s := listed(); strings.Contains(s, "flowtable") || strings.Contains(s, chainFast) {
		t.Errorf("a start without has it still:\n%s", s)
	}
}

// ownFlowtable runs a Kernel with a flowtable.
func ownFlowtable(t *testing.T, lab *netlab.Lab, o Options, listed func() string) {
	t.Helper()
	k := startKernel(t, o)
	wantDevices := func(names ...string) {
		t.Helper()
		testenv.Succeeds(t, func() error {
			s, err := readActual(testContext(t), k.conn, testTable)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.fast) != 1 || s.fast[0].name != flowtableFast || !slices.Equal(s.fast[0].devices, names) || s.fast[0].flags != flowtableCounter {
				return fmt.Errorf("flowtables are %+v, want one of %v", s.fast, names)
			}
			return nil
		})
	}
	wantDevices(netlab.OutsideInterface, netlab.InsideInterface)
	run(t, lab, "ip", "link", "add", "vlan7", "type", "dummy")
	wantDevices(netlab.OutsideInterface, netlab.InsideInterface, "vlan7")
	run(t, lab, "ip", "link", "set", "vlan7", "name", "lan7")
	wantDevices(netlab.OutsideInterface, netlab.InsideInterface)
	for _, want := range []string{"flow add @fast", "counter", chainComments[chainFast], "100.64.0.10 : return"} {
		if !strings.Contains(listed(), want) {
			t.Errorf("the table lacks %q:\n%s", want, listed())
		}
	}
	run(t, lab, "nft", "flush ruleset")
	wantDevices(netlab.OutsideInterface, netlab.InsideInterface)
	run(t, lab, "nft", "add flowtable ip "+testTable+" more { hook ingress priority 0; }")
	wantDevices(netlab.OutsideInterface, netlab.InsideInterface)
	if !k.Bypassed() || k.Flowtables().Refused {
		t.Errorf("with a flowtable of its own: bypassed %t, %+v", k.Bypassed(), k.Flowtables())
	}
}

// TestOffloadedSessions_DEL01_NAT05: flows in a flowtable, own or of others, pass by the gate
// until Reap has deleted their entries, and not a moment longer. Meanwhile they are listed as
// offloaded, without a timeout. A draining subscriber keeps them, and idles out.
func TestOffloadedSessions_DEL01_NAT05(t *testing.T) {
	for _, mode := range []FlowtableMode{OwnFlowtable, AcceptFlowtables, RefuseFlowtables} {
		t.Run(mode.String(), func(t *testing.T) {
			lab := newLab(t)
			if !hasFlowtables(t, lab) {
				if mode == OwnFlowtable {
					return // TestOwnFlowtable has the refusal
				}
				wantNoFlowtables(t, lab, mode)
				return
			}
			if mode != OwnFlowtable {
				run(t, lab, "nft", netlab.OperatorsFlowtable)
			}
			var log logLines
			echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
			if err != nil {
				t.Fatal(err)
			}
			o := labOptions(lab)
			o.Flowtables, o.Logger = mode, log.logger()
			w := wireTest{lab, startKernel(t, o), echo, captureInternet(t, lab)}
			f := w.Flowtables()
			if told := strings.Contains(log.String(), "level=ERROR"); told != (mode == RefuseFlowtables) || f.Refused != told || !w.Bypassed() {
				t.Errorf("refused %t, bypassed %t, logged\n%s", f.Refused, w.Bypassed(), log.String())
			}
			if (len(f.Others) == 2) != (mode != OwnFlowtable) {
				t.Errorf("others are %q", f.Others)
			}

			open, closed := blockOf(alice, nat.GateOpen, 0), nat.Entry{Inside: alice}
			apply(t, w, open, blockOf(bob, nat.GateOpen, 1))
			alices, bobs := w.offloaded(t, alice), w.offloaded(t, bob)
			if mode == OwnFlowtable { // a short flow is not worth an entry there
				if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 5353), echo.Addr()); err != nil {
					t.Fatal(err)
				}
				for s := range w.sessionsOf(t, alice) {
					if s.Inside.Port() == 5353 && s.Offloaded {
						t.Errorf("a flow of one question is offloaded: %+v", s)
					}
				}
			}
			open.Gate = nat.GateDraining
			apply(t, w, open)
			if !answers(alices) {
				t.Error("a draining subscriber lost its offloaded flow")
			}
			if idle, err := w.Idlers(testContext(t), []netip.Addr{alice}); err != nil || len(idle) > 0 {
				t.Errorf("a subscriber with an offloaded flow is idle: %v, %v", idle, err)
			}
			apply(t, w, closed)
			if !answers(alices) {
				t.Error("the flow is not in the flowtable: the gate stopped it")
			}
			began := time.Now()
			proofs, err := w.Reap(testContext(t), []netip.Addr{alice})
			if err != nil || len(proofs) != 1 || proofs[0].Deleted == 0 {
				t.Fatalf("reaped %+v, %v", proofs, err)
			}
			t.Logf("cut by the reap in %v", time.Since(began))
			if answers(alices) {
				t.Error("the flow goes on after the reap")
			}
			if !answers(bobs) {
				t.Error("the neighbour's flow ended")
			}
			w.wantConntrack(t, alice, 0)
			w.wantNoLeak(t, alice)
		})
	}
}

// wantNoFlowtables: a kernel without flowtables has none, in any mode.
func wantNoFlowtables(t *testing.T, lab *netlab.Lab, mode FlowtableMode) {
	t.Helper()
	o := labOptions(lab)
	o.Flowtables = mode
	k := startKernel(t, o)
	if f := k.Flowtables(); k.Bypassed() || f.Refused || len(f.Others) > 0 || f.Mode != mode {
		t.Errorf("without a flowtable: bypassed %t, %+v", k.Bypassed(), f)
	}
}

// offloaded returns a live UDP flow that a flowtable carries.
func (w wireTest) offloaded(t *testing.T, inside netip.Addr) net.Conn {
	t.Helper()
	conn, err := w.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(inside, 5000), w.echo.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	testenv.Succeeds(t, func() error {
		if !answers(conn) {
			return errors.New("no answer")
		}
		for s := range w.sessionsOf(t, inside) {
			if s.Inside.Port() != 5000 || s.State != "OFFLOAD" {
				continue
			}
			if !s.Offloaded || s.ExpiresIn != 0 {
				t.Errorf("an offloaded session is listed as %+v", s)
			}
			return nil
		}
		return fmt.Errorf("not offloaded: %s", run(t, w.Lab, "conntrack", "-L"))
	})
	return conn
}

// answers reports whether a question comes back within some time.
func answers(conn net.Conn) bool {
	for range 3 {
		_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := conn.Write([]byte("?")); err != nil {
			continue
		}
		if _, err := conn.Read(make([]byte, 64)); err == nil {
			return true
		}
	}
	return false
}

// TestFlowtablesAreHeard: notices of others decide when everything is read again, and until
// then flows may pass by the gates.
func TestFlowtablesAreHeard(t *testing.T) {
	var log logLines
	o := Options{InsideInterfaces: []string{"s0", "ppp*"}, OutsideInterfaces: []string{"i0"}, Logger: log.logger()}
	for device, want := range map[string]bool{"s0": true, "ppp12": true, "i0": true, "i01": false, "pp": false} {
		w := newFlowtableWatch(o)
		if w.concerns(device) != want {
			t.Errorf("interface %s: want %t", device, want)
		}
	}
	w := newFlowtableWatch(o)
	step := func(what string, bypassed, due bool) {
		t.Helper()
		if w.bypassed.Load() != bypassed || len(w.due) == 1 != due {
			t.Errorf("%s: bypassed %t, due %t", what, w.bypassed.Load(), len(w.due) == 1)
		}
		for len(w.due) > 0 {
			<-w.due
		}
	}
	w.set(fastPaths{})
	step("none", false, false)
	w.hear(false, true, false)
	step("a rule went where none added flows", false, false)
	w.hear(true, false, false)
	step("a new one", true, true)
	w.set(fastPaths{places: []string{"table inet f, flowtable ft, devices s0"}})
	step("it is read", true, false)
	w.hear(false, true, false)
	step("something went", true, true)
	w.set(fastPaths{})
	step("it went", false, false)
	w.hear(false, false, true)
	step("everything is read from time to time", false, true)
	w.hear(true, false, false)
	w.hear(false, true, false)
	step("a new one, and something went", true, true)
	w.set(fastPaths{})
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "any more") != 1 {
		t.Errorf("logged\n%s", text)
	}

	for _, tt := range []struct {
		mode     FlowtableMode
		hardware bool
		refused  bool
	}{{RefuseFlowtables, false, true}, {OwnFlowtable, false, true}, {AcceptFlowtables, false, false}, {AcceptFlowtables, true, true}} {
		o.Flowtables = tt.mode
		w := newFlowtableWatch(o)
		w.set(fastPaths{places: []string{"x"}, hardware: tt.hardware})
		if got := w.view(); got.Refused != tt.refused || got.Mode != tt.mode {
			t.Errorf("%+v: %+v", tt, got)
		}
	}

	var n news
	n.note(testTable, wire.Notice{Command: wire.NewFlowtable, Family: unix.NFPROTO_INET})
	if !n.fast || n.table {
		t.Errorf("a new flowtable of others: %+v", n)
	}
	n = news{}
	n.note(testTable, wire.Notice{Command: wire.NewRule, Family: unix.NFPROTO_INET, Attrs: ruleAdding(t, "ft")})
	if !n.fast {
		t.Errorf("a new rule that adds flows: %+v", n)
	}
	n = news{}
	n.note(testTable, wire.Notice{Command: wire.DelFlowtable, Family: unix.NFPROTO_IPV4, Attrs: nlmsg.AppendString(nil, flowtableTable, testTable)})
	if !n.gone || !n.table {
		t.Errorf("our flowtable deleted: %+v", n)
	}
}

// ruleAdding returns the attributes of a rule that adds flows to a flowtable.
func ruleAdding(t testing.TB, to string) []byte {
	t.Helper()
	data, err := marshal(&expr.FlowOffload{Name: to})
	if err != nil {
		t.Fatal(err)
	}
	return nlmsg.AppendAttr(nil, unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, nlmsg.AppendAttr(nil, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, data))
}

// TestFlowtablePlan: the operations from the present flowtables to the wanted one.
func TestFlowtablePlan(t *testing.T) {
	many := make([]string, 3*mostDevices)
	for i := range many {
		many[i] = fmt.Sprintf("ppp%04d", i)
	}
	of := func(name string, devices ...string) actualFlowtable {
		return actualFlowtable{table: testTable, name: name, devices: devices}
	}
	for name, tt := range map[string]struct {
		own     bool
		devices []string
		have    []actualFlowtable
		want    string
	}{
		"none":        {},
		"as wanted":   {own: true, devices: []string{"i0", "s0"}, have: []actualFlowtable{of(flowtableFast, "i0", "s0")}},
		"new":         {own: true, devices: []string{"i0", "s0"}, want: "add flowtable fast i0 s0"},
		"no device":   {own: true, want: "add flowtable fast"},
		"one more":    {own: true, devices: []string{"i0", "s0"}, have: []actualFlowtable{of(flowtableFast, "i0")}, want: "add interfaces to flowtable fast s0"},
		"another":     {own: true, devices: []string{"s0"}, have: []actualFlowtable{of(flowtableFast, "i0")}, want: "add interfaces to flowtable fast s0, take interfaces from flowtable fast i0"},
		"not wanted":  {have: []actualFlowtable{of(flowtableFast, "i0")}, want: "delete flowtable fast"},
		"of others":   {own: true, devices: []string{"i0"}, have: []actualFlowtable{of(flowtableFast, "i0"), of("x")}, want: "delete flowtable x"},
		"very many":   {own: true, devices: many, want: "add flowtable fast 200, add interfaces to flowtable fast 200, add interfaces to flowtable fast 200"},
		"gone all of": {own: true, have: []actualFlowtable{of(flowtableFast, many...)}, want: "take interfaces from flowtable fast 200, take interfaces from flowtable fast 200, take interfaces from flowtable fast 200"},
	} {
		r := &ruleset{table: testTable}
		if tt.own {
			r.fast = &flowtable{flowtableFast, tt.devices}
		}
		var b wire.Batch
		s := &actualRuleset{fast: tt.have}
		r.planFlowtable(s, &b)
		r.dropFlowtables(s, &b)
		var got []string
		for op, attrs := range b.Operations() {
			f := parseFlowtable(attrs)
			line := op.Verb + " " + f.name
			if n := len(f.devices); n > 2 {
				line = fmt.Sprintf("%s %d", line, n)
			} else if n > 0 {
				line += " " + strings.Join(f.devices, " ")
			}
			got = append(got, line)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestFastRules: the table has rules for its flowtable only if it has one, and keeps flows with
// learned mappings from it.
func TestFastRules(t *testing.T) {
	o := labOptions(&netlab.Lab{CGN: &netlab.Namespace{}})
	count := func() (chains, rules, looks int) {
		r := newRuleset(o)
		for _, c := range r.chains {
			if c.name == chainFast {
				chains++
			}
		}
		for _, x := range r.rules {
			if x.chain != chainFast {
				continue
			}
			rules++
			for _, e := range x.exprs {
				if l, ok := e.(*expr.Lookup); ok && l.SetName == setMapped {
					looks++
				}
			}
		}
		return chains, rules, looks
	}
	for _, mode := range []FlowtableMode{RefuseFlowtables, AcceptFlowtables} {
		o.Flowtables = mode
		if chains, rules, _ := count(); chains+rules > 0 || newRuleset(o).fast != nil {
			t.Errorf("%v: %d chains and %d rules", mode, chains, rules)
		}
	}
	o.Flowtables = OwnFlowtable
	if chains, rules, looks := count(); chains != 1 || rules != 2 || looks != 0 {
		t.Errorf("own: %d chains, %d rules, %d look for mappings", chains, rules, looks)
	}
	fullCone(&o)
	if _, rules, looks := count(); looks != rules {
		t.Errorf("beside learned mappings %d of %d rules look for them", looks, rules)
	}
}

// TestDefaultsOfFlowtables_NAT05_NAT17: where flowtables may carry flows, the namespace's timeouts of
// established TCP and UDP are the longest of all groups; else they are left alone.
func TestDefaultsOfFlowtables_NAT05_NAT17(t *testing.T) {
	lab := newLab(t)
	sysctl := func(name string) string { return strings.TrimSpace(run(t, lab, "sysctl", "-n", name)) }
	tcp, udp := sysctl(defaultTCP.sysctl), sysctl(defaultUDP.sysctl)
	o := labOptions(lab)
	if err := openKernel(t, o).Close(); err != nil {
		t.Fatal(err)
	}
	if a, b := sysctl(defaultTCP.sysctl), sysctl(defaultUDP.sysctl); a != tcp || b != udp {
		t.Errorf("refused flowtables change the timeouts from %s and %s to %s and %s", tcp, udp, a, b)
	}
	o.Flowtables = AcceptFlowtables
	o.GroupTimeouts = []nat.GroupTimeouts{
		{Inside: []netip.Prefix{netip.PrefixFrom(alice, 32)}, Own: nat.Timeouts{UDP: 400 * time.Second}},
		{Inside: []netip.Prefix{netip.PrefixFrom(bob, 32)}, Own: nat.Timeouts{TCPEstablished: 9000 * time.Second}},
	}
	k := openKernel(t, o)
	if a, b := sysctl(defaultTCP.sysctl), sysctl(defaultUDP.sysctl); a != "9000" || b != "400" {
		t.Errorf("the timeouts are %s and %s, want 9000 and 400", a, b)
	}
	run(t, lab, "sysctl", "-qw", defaultUDP.sysctl+"=7")
	if err := k.check(testContext(t), true); err != nil {
		t.Fatal(err)
	}
	if got := sysctl(defaultUDP.sysctl); got != "400" {
		t.Errorf("it is %s, want 400", got)
	}
}

// TestSessionsOfFlowtables: entries that a flowtable carries come without TCP state and timeout.
func TestSessionsOfFlowtables(t *testing.T) {
	for status, want := range map[uint32]string{
		conntrack.StatusAssured: "NONE", conntrack.StatusAssured | conntrack.StatusOffloaded: "OFFLOAD",
		conntrack.StatusOffloaded | conntrack.StatusOffloadedHardware: "HW_OFFLOAD",
	} {
		e := conntrack.Entry{Status: status, Orig: conntrack.Tuple{Src: alice, Protocol: unix.IPPROTO_TCP}}
		list := SessionsIn(e, []netip.Prefix{netip.PrefixFrom(alice, 32)})
		if len(list) != 1 || list[0].State != want || list[0].Offloaded != (want != "NONE") {
			t.Errorf("status %x: %+v, want %s", status, list, want)
		}
	}
}

// TestWarnsOfSkippedRules: flowtables of others harm two kinds of sessions, which a start names.
func TestWarnsOfSkippedRules(t *testing.T) {
	for _, mode := range []FlowtableMode{RefuseFlowtables, AcceptFlowtables, OwnFlowtable} {
		o := Options{Flowtables: mode, NoNAT: make([]nat.NoNAT, 1)}
		fullCone(&o)
		var log logLines
		o.warnOfSkippedRules(log.logger())
		if warned := strings.Count(log.String(), "level=WARN"); (warned == 2) != (mode == AcceptFlowtables) || warned == 1 {
			t.Errorf("%v: %d warnings", mode, warned)
		}
	}
}

// FuzzFlowtable: what is appended is read back, and the parsers take any bytes.
func FuzzFlowtable(f *testing.F) {
	f.Add([]byte{8, 0, 3, 128, 4, 0, 3, 128}, "fast", "s0")
	f.Add([]byte{}, "", "")
	f.Fuzz(func(t *testing.T, junk []byte, name, device string) {
		parseFlowtable(junk)
		addsFlowsTo(junk)
		if len(name) > 100 || len(device) > 100 || strings.Contains(name+device, "\x00") {
			return
		}
		got := parseFlowtable(appendDevices(appendFlowtable(nil, testTable, name), []string{device}))
		if got.table != testTable || got.name != name || !slices.Equal(got.devices, []string{device}) {
			t.Errorf("flowtable %q of %q is read back as %+v", name, device, got)
		}
		if to := addsFlowsTo(ruleAdding(t, "ft")); to != "ft" {
			t.Errorf("the rule adds to %q", to)
		}
	})
}
