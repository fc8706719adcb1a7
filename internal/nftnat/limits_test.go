package nftnat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// limitTest is a NAT with limits of the subscribers in 100.64.0.0/24: alice and bob.
type limitTest struct{ wireTest }

var limitedPrefix = netip.MustParsePrefix("100.64.0.0/24")

func limitsOf(l nat.Limits) []nat.PrefixLimits {
	return []nat.PrefixLimits{{Inside: []netip.Prefix{limitedPrefix}, Limits: l}}
}

func newLimitTest(t *testing.T, l nat.Limits) limitTest {
	t.Helper()
	return limitTest{newWireTestWith(t, func(o *Options) { o.Limits = limitsOf(l) })}
}

// flood sends datagrams of new flows from one port of an address at a rate for some time, and
// returns the time that it took, and the number sent.
func (w limitTest) flood(t *testing.T, from netip.Addr, perSecond int, d time.Duration) (took time.Duration, sent int) {
	t.Helper()
	return w.floodInSteps(t, from, perSecond, d, func(time.Duration, int) {})
}

// floodInSteps is flood that tells the time and the number of datagrams of each step: a machine
// with other load sends in bursts.
func (w limitTest) floodInSteps(t *testing.T, from netip.Addr, perSecond int, d time.Duration, step func(time.Duration, int)) (took time.Duration, sent int) {
	t.Helper()
	conn, err := w.Subscriber.ListenUDP(netip.AddrPortFrom(from, 7777))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began, due := time.Now(), 0.0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for took < d {
		<-tick.C
		at := time.Since(began)
		due = min(due+(at-took).Seconds()*float64(perSecond), max(1, float64(perSecond)/50)) // what is missed is not made up for
		n := int(due)
		due -= float64(n)
		step(at, n)
		for range n {
			to := netip.AddrPortFrom(w.Remotes[sent/60_000%2], uint16(1+sent%60_000))
			if _, err := conn.WriteToUDPAddrPort([]byte("?"), to); err != nil && !isUnreachable(err) {
				t.Fatal(err)
			}
			sent++
		}
		took = at
	}
	return time.Since(began), sent
}

// isUnreachable reports whether an error is the ICMP error about an earlier datagram.
func isUnreachable(err error) bool { return strings.Contains(err.Error(), "no route to host") }

// entries counts the conntrack entries that begin with an address.
func (w limitTest) entries(t *testing.T, from netip.Addr) int {
	t.Helper()
	return strings.Count(run(t, w.Lab, "conntrack", "-L", "-s", from.String()), " src="+from.String())
}

// asks counts the answers to datagrams of new flows that an address sends one after the other.
func (w limitTest) asks(t testing.TB, from netip.Addr, first uint16, n int) (answered int) {
	t.Helper()
	for port := range uint16(n) {
		ctx, cancel := context.WithTimeout(testContext(t), 500*time.Millisecond)
		if _, err := w.Subscriber.AskUDP(ctx, netip.AddrPortFrom(from, first+port), w.echo.Addr()); err == nil {
			answered++
		}
		cancel()
	}
	return answered
}

// TestRateLimitHolds_NAT28 floods at 20 times the rate. Counted in conntrack, no more than 2 %
// above the rate get through; what stands goes on, and so does the neighbour's opening of sessions.
func TestRateLimitHolds_NAT28(t *testing.T) {
	const rate = 1000
	w := newLimitTest(t, nat.Limits{NewSessionsPerSecond: rate})
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	standing := w.flow(t, alice)
	neighbour := make(chan int)
	go func() { neighbour <- w.asks(t, bob, 5000, 200) }()
	tokens, last, offered := float64(RateBurst(rate)), time.Duration(0), 0.0
	took, sent := w.floodInSteps(t, alice, 20*rate, 4*time.Second, func(at time.Duration, n int) {
		tokens = min(float64(RateBurst(rate)), tokens+(at-last).Seconds()*rate)
		last = at
		passed := min(tokens, float64(n))
		tokens, offered = tokens-passed, offered+passed
	})
	if got := <-neighbour; got != 200 {
		t.Errorf("%d of 200 sessions of the neighbour began", got)
	}
	began, allowed := w.entries(t, alice)-1, rate*took.Seconds()
	t.Logf("%d flows in %v, %d began, %.1f %% of the limit", sent, took, began, 100*float64(began)/allowed)
	if float64(began) > 1.02*allowed || float64(began) < 0.9*offered {
		t.Errorf("%d flows began in %v at a limit of %d a second, which lets %.0f of these in", began, took, rate, offered)
	}
	if out, in := standing.Probe(5 * time.Second); !out || !in {
		t.Errorf("what stood passes out %t, in %t", out, in)
	}
	w.dropped(t, chainRefuse(nat.LimitNewSessions), nat.LimitNewSessions.String())
	if got := w.asks(t, alice, 9000, 20); got != 20 {
		t.Errorf("after the flood %d of 20 sessions began", got)
	}
}

// TestSessionLimitHolds_NAT28_NAT32 floods at 20,000 flows a second against a limit of sessions.
func TestSessionLimitHolds_NAT28_NAT32(t *testing.T) {
	const most = 1000
	w := newLimitTest(t, nat.Limits{Sessions: most})
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	standing := w.flow(t, alice)
	took, sent := w.flood(t, alice, 20*most, 3*time.Second)
	began := w.entries(t, alice)
	t.Logf("%d flows in %v, %d sessions", sent, took, began)
	if began < most || began > most*102/100 {
		t.Errorf("%d sessions, the limit is %d", began, most)
	}
	if got := w.asks(t, alice, 9000, 3); got != 0 {
		t.Errorf("%d sessions began at the limit", got)
	}
	if got := w.asks(t, bob, 9000, 3); got != 3 {
		t.Errorf("%d of 3 sessions of the neighbour began", got)
	}
	if out, in := standing.Probe(5 * time.Second); !out || !in {
		t.Errorf("what stood passes out %t, in %t", out, in)
	}
	run(t, w.Lab, "conntrack", "-D", "-s", alice.String(), "-p", "udp")
	testenv.Succeeds(t, func() error {
		if w.asks(t, alice, 9100, 1) != 1 {
			return errors.New("nothing begins after the sessions have ended")
		}
		return nil
	})
}

// TestPortLimit_NAT28: at a limit of ports of one protocol no port more gets a mapping; those with
// a mapping reach new hosts, and the other protocol is free.
func TestPortLimit_NAT28(t *testing.T) {
	w := newLimitTest(t, nat.Limits{UDPPorts: 8})
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	other, err := w.Internet.StartEcho(netip.AddrPortFrom(w.Remotes[1], 7001))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.asks(t, alice, 5000, 8); got != 8 {
		t.Fatalf("%d of 8 sessions began", got)
	}
	testenv.Succeeds(t, func() error {
		if !strings.Contains(run(t, w.Lab, "nft", "list", "set", "ip", testTable, setAtLimit(nat.LimitUDPPorts)), alice.String()) {
			return errors.New("not at the limit")
		}
		return nil
	})
	if got := w.asks(t, alice, 6000, 3); got != 0 {
		t.Errorf("%d more ports got a mapping", got)
	}
	for port := range uint16(8) {
		if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 5000+port), other.Addr()); err != nil {
			t.Errorf("port %d, which has a mapping: %v", 5000+port, err)
		}
	}
	if _, err := w.Subscriber.AskTCP(testContext(t), netip.AddrPortFrom(alice, 6000), w.echo.Addr()); err != nil {
		t.Errorf("TCP: %v", err)
	}
	if _, err := w.Ping(testContext(t), alice, 77); err != nil {
		t.Errorf("ping: %v", err)
	}
}

// TestLimitIsTold_NAT33: a refused flow is answered with ICMP host unreachable, once a second and
// three at once for each subscriber, and nobody outside is told. Refusals names the subscriber.
func TestLimitIsTold_NAT33(t *testing.T) {
	w := newLimitTest(t, nat.Limits{Sessions: 5})
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	if list, err := w.Refusals(testContext(t)); err != nil || len(list) > 0 {
		t.Errorf("refused at first: %v, %v", list, err)
	}
	inside, err := w.CGN.Capture(netlab.InsideInterface)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	began := time.Now()
	_, sent := w.flood(t, alice, 100, 2*time.Second)
	if err := inside.Settle(testContext(t), w.CGN, alice); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	told := inside.Matching(func(p netlab.Packet) bool {
		return p.Outgoing && p.Protocol == netlab.ICMP && p.Type == 3 && p.Source.Addr() != w.Remotes[0]
	})
	if len(told) < 3 || len(told) > unreachableOfOneBurst+1+int(took.Seconds()) {
		t.Errorf("%d ICMP errors about some %d refused flows in %v", len(told), sent-5, took)
	}
	for _, p := range told {
		if p.Code != icmpHostUnreachable || p.Destination.Addr() != alice {
			t.Errorf("told %+v", p)
		}
	}
	if outside := w.capture.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Protocol == netlab.ICMP && p.Type == 3 }); len(outside) > 0 {
		t.Errorf("outside is told %+v", outside)
	}
	list, err := w.Refusals(testContext(t))
	if err != nil || !slices.Equal(list, []nat.Refusal{{Inside: alice, Limit: nat.LimitSessions}}) {
		t.Errorf("refused are %v, %v", list, err)
	}
	if _, err := w.Subscriber.AskTCP(testContext(t), netip.AddrPortFrom(bob, 0), w.echo.Addr()); err != nil {
		t.Error(err)
	}
	_, err = w.Subscriber.AskTCP(testContext(t), netip.AddrPortFrom(alice, 0), w.echo.Addr())
	if err == nil {
		t.Error("a connection began at the limit")
	}
}

// TestRefusalsHoldUpNothing_I10: who is refused sessions is read while the table is being programmed.
func TestRefusalsHoldUpNothing_I10(t *testing.T) {
	w := newLimitTest(t, nat.Limits{NewSessionsPerSecond: 1})
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	w.asks(t, alice, 5000, 20)
	if err := w.lock(testContext(t)); err != nil {
		t.Fatal(err)
	}
	defer w.unlock()
	ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
	defer cancel()
	list, err := w.Refusals(ctx)
	if want := (nat.Refusal{Inside: alice, Limit: nat.LimitNewSessions}); err != nil || !slices.Equal(list, []nat.Refusal{want}) {
		t.Errorf("refused are %v, %v; want %v", list, err, want)
	}
}

// TestLimitsAreOfFirstPackets: at the limits of everything, the replies to what stands come in.
func TestLimitsAreOfFirstPackets_NAT32(t *testing.T) {
	w := newLimitTest(t, nat.Limits{Sessions: 1, NewSessionsPerSecond: 1, TCPPorts: 1, UDPPorts: 1})
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	standing := w.flow(t, alice)
	testenv.Succeeds(t, func() error {
		if !strings.Contains(run(t, w.Lab, "nft", "list", "set", "ip", testTable, setAtLimit(nat.LimitSessions)), alice.String()) {
			return errors.New("not at the limit")
		}
		return nil
	})
	for range 100 {
		if err := errors.Join(standing.Out(testContext(t)), standing.In(testContext(t))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLimitsChangeAtRunTime: limits come, change and go; sessions stay, and with the last limit
// everything goes that limits put into the table.
func TestLimitsChangeAtRunTime_NAT28(t *testing.T) {
	w := limitTest{newWireTest(t)}
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	before := run(t, w.Lab, "nft", "list", "table", "ip", testTable)
	set := func(l ...nat.PrefixLimits) {
		t.Helper()
		if err := w.SetLimits(testContext(t), l); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.asks(t, alice, 5000, 10); got != 10 {
		t.Fatalf("%d of 10 sessions began", got)
	}
	wantSessions(t, w, alice, 10)
	set(limitsOf(nat.Limits{Sessions: 10})...) // it has as many: known at once
	if got := w.asks(t, alice, 5100, 2); got != 0 {
		t.Errorf("%d sessions began at the limit", got)
	}
	if got := w.asks(t, alice, 5000, 10); got != 10 {
		t.Errorf("%d of 10 sessions stayed", got)
	}
	set(limitsOf(nat.Limits{Sessions: 20, NewSessionsPerSecond: 2})...)
	began := time.Now()
	if got, most := w.asks(t, alice, 5100, 8), 3+int(2*time.Since(began).Seconds()); got < 2 || got > most || got == 8 {
		t.Errorf("%d sessions began in %v, 2 at once and 2 a second may", got, time.Since(began))
	}
	set(limitsOf(nat.Limits{NewSessionsPerSecond: 1000})...)
	if got := w.asks(t, alice, 5200, 15); got != 15 {
		t.Errorf("%d of 15 sessions began", got)
	}
	set()
	if after := run(t, w.Lab, "nft", "list", "table", "ip", testTable); withoutCounts(after) != withoutCounts(before) {
		t.Errorf("the table was\n%s\nand is\n%s", before, after)
	}
	if err := w.SetLimits(testContext(t), []nat.PrefixLimits{{Inside: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}, Limits: nat.Limits{Sessions: 1}}}); err == nil {
		t.Error("limits of IPv6 were accepted")
	}
}

var counterValues = regexp.MustCompile(`packets \d+ bytes \d+`)

// withoutCounts is a listing without the values of counters.
func withoutCounts(listing string) string { return counterValues.ReplaceAllString(listing, "") }

// TestRemovalTakesLimits: no set names a subscriber that was removed, at whatever limits it was.
func TestRemovalTakesLimits_NAT28_DEL07(t *testing.T) {
	w := newLimitTest(t, nat.Limits{Sessions: 30, NewSessionsPerSecond: 400, TCPPorts: 4, UDPPorts: 4})
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	w.asks(t, alice, 5000, 5)
	w.flood(t, alice, 2000, time.Second)
	w.asks(t, bob, 5000, 1)
	listing := func() string { return run(t, w.Lab, "nft", "list", "table", "ip", testTable) }
	if got := strings.Count(listing(), alice.String()); got < 6 {
		t.Fatalf("only %d elements name the subscriber: %s", got, listing())
	}
	apply(t, w, nat.Entry{Inside: alice})
	if receipts, err := w.Reap(testContext(t), []netip.Addr{alice}); err != nil || len(receipts) != 1 {
		t.Fatalf("receipts are %+v: %v", receipts, err)
	}
	w.flood(t, alice, 2000, 100*time.Millisecond) // it goes on sending
	if got := listing(); strings.Contains(got, alice.String()) || !strings.Contains(got, bob.String()) {
		t.Errorf("after the removal: %s", got)
	}
	apply(t, w, blockOf(alice, nat.GateOpen, 3))
	if got := w.asks(t, alice, 5000, 3); got != 3 {
		t.Errorf("of the address's next subscriber %d of 3 sessions began", got)
	}
}

// TestExpiringLimitsGo_DEL03_NAT28: of the elements that limits made for a crowd that is cut some expire all
// the time. The others go all the same.
func TestExpiringLimitsGo_DEL03_NAT28(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.Limits = limitsOf(nat.Limits{NewSessionsPerSecond: 100})
	k := openKernel(t, o)
	var gone []netip.Addr
	var list strings.Builder
	for i := range 10_000 {
		a := netip.AddrFrom4([4]byte{100, 64, byte(1 + i>>8), byte(i)})
		gone = append(gone, a)
		fmt.Fprintf(&list, "%v timeout %dms,", a, 1+i)
	}
	for _, set := range []string{setNewSessions, setRefused(nat.LimitNewSessions)} {
		loadFile(t, lab, fmt.Sprintf("add element ip %s %s { %s }\n", testTable, set, list.String()))
	}
	if receipts, err := k.Reap(testContext(t), gone); err != nil || len(receipts) != len(gone) {
		t.Fatalf("%d receipts, %v; want %d", len(receipts), err, len(gone))
	}
	for _, set := range []string{setNewSessions, setRefused(nat.LimitNewSessions)} {
		left := 0
		err := elements(testContext(t), k.conn, testTable, set, func() { left = 0 }, func([]byte) { left++ })
		if err != nil || left > 0 {
			t.Errorf("%d elements of %s are left, %v", left, set, err)
		}
	}
}

// TestDrainingUnderLimits_DEL11: a draining subscriber keeps what stands under limits, begins
// nothing, and reaches the machine itself.
func TestDrainingUnderLimits_DEL11_NAT28(t *testing.T) {
	w := limitTest{newWireTestWith(t, func(o *Options) {
		o.Limits, o.MaxUngated = limitsOf(nat.Limits{Sessions: 100, NewSessionsPerSecond: 100}), 50
	})}
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	standing := w.flow(t, alice)
	apply(t, w, blockOf(alice, nat.GateDraining, 0))
	if got := w.asks(t, alice, 5000, 3); got != 0 {
		t.Errorf("%d sessions began while draining", got)
	}
	w.dropped(t, chainDraining, "new session while draining")
	if out, in := standing.Probe(5 * time.Second); !out || !in {
		t.Errorf("what stood passes out %t, in %t", out, in)
	}
	u := ungatedTest{wireTest: w.wireTest}
	u.send(t, alice, 8)
	testenv.Succeeds(t, func() error {
		if got := w.entries(t, alice); got != 9 {
			return fmt.Errorf("%d entries, want what stood and 8 to the machine itself", got)
		}
		return nil
	})
}

// TestLimitsSurviveRestart_I7_I9: a subscriber at its limits stays there over a restart, also
// while the new daemon has not counted yet, and with the table flushed in between.
func TestLimitsSurviveRestart_I7_I9(t *testing.T) {
	lab := newLab(t)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
	if err != nil {
		t.Fatal(err)
	}
	o := labOptions(lab)
	o.Limits = limitsOf(nat.Limits{Sessions: 10, UDPPorts: 10})
	first, err := dialAndStart(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = first.Run(ctx) }()
	<-first.Ready()
	apply(t, first, blockOf(alice, nat.GateOpen, 0))
	w := limitTest{wireTest{Lab: lab, Kernel: first, echo: echo}}
	atLimit := func() error {
		named := func(set string) (int, error) { // the table is away for a moment
			out, err := lab.CGN.Output(testContext(t), "nft", "list", "set", "ip", testTable, set)
			return strings.Count(string(out), alice.String()), err
		}
		for _, l := range []nat.Limit{nat.LimitSessions, nat.LimitUDPPorts} {
			if n, err := named(setAtLimit(l)); err != nil || n == 0 {
				return fmt.Errorf("not at the limit: %v, %v", l, err)
			}
		}
		if n, err := named(setMappedPorts); err != nil || n != 10 {
			return fmt.Errorf("%d ports are known to have a mapping: %v", n, err)
		}
		return nil
	}
	if got := w.asks(t, alice, 5000, 10); got != 10 {
		t.Fatalf("%d of 10 sessions began", got)
	}
	testenv.Succeeds(t, atLimit)
	stop()
	<-done
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := openKernel(t, o) // which does not run yet
	if err := atLimit(); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	runKernel(t, again)
	if got := w.asks(t, alice, 6000, 2); got != 0 {
		t.Errorf("%d sessions began at the limit after a restart", got)
	}
	run(t, lab, "nft", "flush", "ruleset")
	testenv.Succeeds(t, atLimit)
	run(t, lab, "nft", "flush", "set", "ip", testTable, setAtLimit(nat.LimitSessions))
	testenv.Succeeds(t, atLimit)
}

// TestLimitIsLeftWithoutEvents_NAT28_I7: sessions that began while no daemon ran end without an
// event of the kernel. They keep nobody at a limit.
func TestLimitIsLeftWithoutEvents_NAT28_I7(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.Limits = limitsOf(nat.Limits{Sessions: 8, UDPPorts: 4})
	first, err := dialAndStart(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, first, blockOf(alice, nat.GateOpen, 0))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
	for port := range uint16(4) {
		for _, to := range lab.Remotes {
			if err := lab.Subscriber.Send(netlab.Packet{
				Protocol: netlab.UDP, Source: netip.AddrPortFrom(alice, 5000+port), Destination: netip.AddrPortFrom(to, 7000),
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(t, lab, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
	at := func(l nat.Limit) bool {
		return strings.Contains(run(t, lab, "nft", "list", "set", "ip", testTable, setAtLimit(l)), alice.String())
	}
	startKernel(t, o)
	testenv.Succeeds(t, func() error {
		if !at(nat.LimitSessions) || !at(nat.LimitUDPPorts) {
			return errors.New("not at the limits")
		}
		return nil
	})
	run(t, lab, "conntrack", "-D", "-s", alice.String())
	ctx, cancel := context.WithTimeout(testContext(t), 2*boundInterval)
	defer cancel()
	for at(nat.LimitSessions) || at(nat.LimitUDPPorts) {
		if err := clock.Sleep(ctx, 20*time.Millisecond); err != nil {
			t.Fatal("still at a limit without a session")
		}
	}
}

// TestReserve_NAT28: while the conntrack table is nearly full a subscriber opens no more sessions
// than its reserve, and one that has fewer opens them.
func TestReserve_NAT28(t *testing.T) {
	w := newLimitTest(t, nat.Limits{Sessions: 40, Reserve: 10})
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	if got := w.asks(t, alice, 5000, 20); got != 20 {
		t.Fatalf("%d of 20 sessions began", got)
	}
	w.flows.SetScarce(true)
	testenv.Succeeds(t, func() error {
		if !strings.Contains(run(t, w.Lab, "nft", "list", "set", "ip", testTable, setAtLimit(nat.LimitSessions)), alice.String()) {
			return errors.New("not at the limit")
		}
		return nil
	})
	if got := w.asks(t, alice, 6000, 1); got != 0 {
		t.Error("a session beyond the reserve began")
	}
	if got := w.asks(t, bob, 6000, 9); got != 9 {
		t.Errorf("%d of 9 sessions of the reserve began", got)
	}
}

// TestLimitsAreListed: nft prints the table with limits, and loads its own listing, and the
// elements that packets made are nobody's changes.
func TestLimitsAreListed_NAT28(t *testing.T) {
	var told logLines
	w := limitTest{newWireTestWith(t, func(o *Options) {
		o.Limits = append(limitsOf(nat.Limits{Sessions: 300, NewSessionsPerSecond: 1000, TCPPorts: 9, UDPPorts: 9}),
			nat.PrefixLimits{Inside: []netip.Prefix{netip.MustParsePrefix("100.66.0.1/32"), netip.MustParsePrefix("100.70.0.0/15")}, Limits: nat.Limits{NewSessionsPerSecond: 7}})
		o.InsideInterfaces = append(o.InsideInterfaces, "ppp*")
		o.Logger = told.logger()
	})}
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	apply(t, w, blockOf(bob, nat.GateOpen, 1))
	w.asks(t, alice, 5000, 9)
	w.flood(t, bob, 1000, 500*time.Millisecond)
	testenv.Succeeds(t, func() error {
		listing := run(t, w.Lab, "nft", "list", "table", "ip", testTable)
		for _, want := range []string{
			"reject with icmp host-unreachable", alice.String() + " . udp . 5000", bob.String() + " limit rate over 150/second burst 8 packets",
			"ip saddr 100.66.0.1 update", "ip saddr 100.70.0.0/15 update @new_sessions { ip saddr limit rate over 7/second burst 7 packets }",
		} {
			if !strings.Contains(listing, want) {
				return fmt.Errorf("the listing lacks %q: %s", want, listing)
			}
		}
		return nil
	})
	run(t, w.Lab, "nft", "-j", "list", "table", "ip", testTable)
	if err := w.check(testContext(t), true); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(told.String(), "by others") {
		t.Errorf("the log says %s", told.String())
	}
	file := t.TempDir() + "/saved.nft"
	run(t, w.Lab, "sh", "-c", "(echo flush ruleset; nft list ruleset) > "+file+" && nft -f "+file)
	wantEntries(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
}
