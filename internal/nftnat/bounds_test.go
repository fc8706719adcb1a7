package nftnat

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
	"github.com/sessiond/sessiond/internal/throttle"
)

// TestSessionsAreBounded_I10 has one subscriber open more sessions than the limit. It gets no
// more; its present ones go on, and so do its neighbour's. With fewer it opens new ones.
func TestSessionsAreBounded_I10(t *testing.T) {
	const most = 40
	var told logLines
	w := newWireTestWith(t, func(o *Options) {
		o.MaxSessions = most
		o.Logger = slog.New(slog.NewTextHandler(&told, nil))
	})
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	standing := w.flow(t, alice)
	sent := 0
	flood := func() error {
		sent++
		return w.Subscriber.Send(netlab.Packet{
			Protocol: netlab.UDP, Source: netip.AddrPortFrom(alice, 5000), Destination: netip.AddrPortFrom(w.Remotes[1], uint16(sent)),
		})
	}
	full := func(want int) {
		t.Helper()
		testenv.Succeeds(t, func() error {
			elements := strings.Count(run(t, w.Lab, "nft", "list", "set", "ip", testTable, setFull), alice.String())
			if got := w.Fill().Full; got != want || elements != want {
				return fmt.Errorf("%d subscribers are full, %d in the set, want %d", got, elements, want)
			}
			return nil
		})
	}
	for sent <= most {
		if err := flood(); err != nil {
			t.Fatal(err)
		}
	}
	full(1)
	before, err := w.CGN.Conntrack(testContext(t), alice)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := flood(); err != nil {
			t.Fatal(err)
		}
	}
	w.dropped(t, chainSrcnat, "too many sessions")
	w.wantConntrack(t, alice, len(before))
	if out, in := standing.Probe(5 * time.Second); !out || !in {
		t.Errorf("what stood passes out %t, in %t", out, in)
	}
	if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(bob, 5000), w.echo.Addr()); err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	if log := told.String(); strings.Count(log, "max_sessions_per_subscriber") != 1 || !strings.Contains(log, "inside="+alice.String()) {
		t.Errorf("the log says %s", log)
	}
	if strings.Contains(told.String(), "changed by others") {
		t.Error("the set is taken for others' doing")
	}

	for port := 1; port < 20; port++ {
		run(t, w.Lab, "conntrack", "-D", "-s", alice.String(), "-p", "udp", "--dport", fmt.Sprint(port))
	}
	full(0)
	if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 5001), w.echo.Addr()); err != nil {
		t.Errorf("with fewer sessions: %v", err)
	}
}

// TestFloodThroughMappingIsBounded floods a mapped port of a subscriber from outside. Through
// the mapping come no more than the bound, and the subscriber opens sessions as before.
func TestFloodThroughMappingIsBounded(t *testing.T) {
	lab := newLab(t)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
	if err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "table ip mapping { chain c { type nat hook prerouting priority -100; ip daddr "+eip.String()+
		" udp dport 4000 dnat to "+alice.String()+":5000; }; }")
	var told logLines
	o := labOptions(lab)
	o.MaxSessions = 40
	o.Logger = slog.New(slog.NewTextHandler(&told, nil))
	w := wireTest{Lab: lab, Kernel: startKernel(t, o), echo: echo}
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	sent := uint16(1000)
	flood := func(n int) {
		t.Helper()
		for range n {
			sent++
			if err := w.Internet.Send(netlab.Packet{
				Protocol: netlab.UDP, Source: netip.AddrPortFrom(w.Remotes[1], sent), Destination: netip.AddrPortFrom(eip, 4000),
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	flood(2*o.MaxSessions + 2)
	testenv.Succeeds(t, func() error {
		if !strings.Contains(run(t, lab, "nft", "list", "set", "ip", testTable, setFullMapped), alice.String()) {
			return errors.New("the mapped sessions of the subscriber are not bounded")
		}
		return nil
	})
	mapped := func() int {
		return strings.Count(run(t, lab, "conntrack", "-L", "-p", "udp", "--orig-port-dst", "4000"), "dport=4000")
	}
	before := mapped()
	flood(100)
	w.dropped(t, chainSrcnat, "too many sessions through mappings")
	if got := mapped(); got != before {
		t.Errorf("%d sessions through the mapping, %d before it was full", got, before)
	}
	if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 5001), echo.Addr()); err != nil {
		t.Errorf("the subscriber opens a session: %v", err)
	}
	if got := w.Fill().Full; got != 0 {
		t.Errorf("%d subscribers are said to open no sessions", got)
	}
	run(t, lab, "conntrack", "-D", "-p", "udp", "--orig-port-dst", "4000")
	testenv.Succeeds(t, func() error {
		if strings.Contains(run(t, lab, "nft", "list", "set", "ip", testTable, setFullMapped), alice.String()) {
			return errors.New("still closed")
		}
		return nil
	})
	if log := told.String(); strings.Count(log, "through mappings") != 1 || strings.Contains(log, "it opens no new ones") {
		t.Errorf("the log says %s", log)
	}
}

// TestManyAtTheBoundAreToldBriefly: thousands of subscribers that reach the bound at once
// cause one line, and the next line has the number of those without one.
func TestManyAtTheBoundAreToldBriefly(t *testing.T) {
	var told logLines
	full := &fullTold{log: slog.New(slog.NewTextHandler(&told, nil))}
	var worm []netip.Addr
	for a := alice; len(worm) < 10_000; a = a.Next() {
		worm = append(worm, a)
	}
	synctest.Test(t, func(t *testing.T) {
		var thin throttle.Throttle
		full.tell(&thin, worm[:5], nil, "full")
		full.tell(&thin, worm[:9_999], worm[:5], "full")
		if got := told.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "inside="+alice.String()) {
			t.Errorf("told %s", got)
		}
		time.Sleep(throttle.DefaultInterval)
		full.tell(&thin, worm, worm[:9_999], "full")
		if got := told.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "subscribers_at_limit=10000 suppressed=9998") {
			t.Errorf("told %s", got)
		}
	})
}

// TestSessionsToTheMachineAreBounded_I10 floods the machine itself: that fills the conntrack
// table just as sessions to the internet do.
func TestSessionsToTheMachineAreBounded_I10(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.MaxSessions = 40
	k := startKernel(t, o)
	w := wireTest{Lab: lab, Kernel: k}
	apply(t, k, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	flood := func(from netip.Addr, first, n int) {
		t.Helper()
		for port := range n {
			if err := lab.Subscriber.Send(netlab.Packet{
				Protocol: netlab.UDP, Source: netip.AddrPortFrom(from, 5000),
				Destination: netip.AddrPortFrom(netlab.InsideGateway.Addr(), uint16(first+port)),
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	flood(alice, 1, o.MaxSessions+1)
	testenv.Succeeds(t, func() error {
		if !strings.Contains(run(t, lab, "nft", "list", "set", "ip", testTable, setFull), alice.String()) {
			return fmt.Errorf("%v is not in the set of those at the bound", alice)
		}
		return nil
	})
	flood(alice, 1000, 100)
	w.dropped(t, chainInput, "too many sessions")
	w.wantConntrack(t, alice, o.MaxSessions+1)
	flood(bob, 1, 10)
	w.wantConntrack(t, bob, 10)
}

// TestFillIsTold fills the conntrack table up to its limit, and checks Fill and the log.
func TestFillIsTold(t *testing.T) {
	lab := newLab(t)
	k := startKernel(t, labOptions(lab))
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	conn, err := lab.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(alice, 5000), netip.AddrPortFrom(lab.Remotes[0], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	testenv.Succeeds(t, func() error {
		if f := k.Fill(); f.Entries < 1 || f.Limit < 1000 {
			return fmt.Errorf("the fill is %+v", f)
		}
		return nil
	})
	want := strings.TrimSpace(run(t, lab, "sysctl", "-n", "net.netfilter.nf_conntrack_max"))
	if got := fmt.Sprint(k.Fill().Limit); got != want {
		t.Errorf("the limit is %s, want %s", got, want)
	}
}

// TestFillAlarms: each share is logged once, and so is the return below it.
func TestFillAlarms(t *testing.T) {
	var told logLines
	w := &fillWatch{log: slog.New(slog.NewTextHandler(&told, nil))}
	for _, step := range []struct{ entries, lines int }{
		{700, 0}, {800, 1}, {850, 1}, {780, 1}, {960, 2}, {990, 2}, {760, 2}, {700, 3}, {100, 3}, {1000, 4},
	} {
		w.tell(t.Context(), step.entries, 1000)
		if got := strings.Count(told.String(), "\n"); got != step.lines {
			t.Errorf("at %d of 1000: %d lines, want %d: %s", step.entries, got, step.lines, told.String())
		}
	}
}

// TestFillFindsEverybodyOnce: when a table is made anew each address is programmed once, with
// any of them having flows, and in transactions of any size.
func TestFillFindsEverybodyOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		s := newShadowOf(t, r, r.IntN(300))
		var live []netip.Addr
		for range r.IntN(100) { // of some of them, and of strangers
			live = append(live, randomInside(r))
		}
		slices.SortFunc(live, netip.Addr.Compare)
		live = slices.Compact(live)
		got := map[address]int{}
		for _, c := range s.fillAt(live) {
			got[c.inside]++
		}
		others := butFor(live)
		for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
			var made []change
			made, from = s.fillFrom(nil, from, others, batchFrame+wholeBytes*(1+r.IntN(20)))
			for _, c := range made {
				got[c.inside]++
			}
		}
		for inside, n := range got {
			if n != 1 {
				t.Fatalf("%v is programmed %d times", inside.addr(), n)
			}
		}
		if len(got) != s.len() {
			t.Fatalf("%d of %d are programmed", len(got), s.len())
		}
	}
}

func newShadowOf(t *testing.T, r *rand.Rand, n int) *shadow {
	t.Helper()
	s := &shadow{}
	for range n {
		s.set(randomInside(r).As4(), cell{nat.GateOpen, block{outside: address{198, 18, 0, 1}, first: 1024, last: 1535}})
	}
	return s
}

func randomInside(r *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, byte(r.IntN(2)), byte(r.IntN(256))})
}
