package nftnat

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// wantPasses checks whether a flow passes, both ways.
func wantPasses(t *testing.T, f *netlab.Flow, want bool, when string) {
	t.Helper()
	patience := 5 * time.Second
	if !want {
		patience = 300 * time.Millisecond
	}
	if out, in := f.Probe(patience); out != want || in != want {
		t.Errorf("%s the flow passes out %t, in %t, want %t", when, out, in, want)
	}
}

// labelOf returns the label of the flows that the table translates.
func labelOf(t *testing.T, k *Kernel) conntrack.Labels {
	t.Helper()
	if err := k.lock(testContext(t)); err != nil {
		t.Fatal(err)
	}
	defer k.unlock()
	return k.options.short.label
}

// TestCutWithoutAGate_DEL01_I3: what others did to the gate neither stops a subscriber's flows,
// nor lets them go on once the subscriber is cut off, before the flows are reaped.
func TestCutWithoutAGate_DEL01_I3(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	cut, other := w.flow(t, alice), w.flow(t, bob)
	run(t, w.Lab, "nft", "delete", "element", "ip", testTable, mapGate, "{", alice.String(), "}")
	run(t, w.Lab, "nft", "delete", "element", "ip", testTable, mapBlock, "{", alice.String(), "}")
	wantPasses(t, cut, true, "without a gate")
	w.send(t, netip.AddrPortFrom(alice, 6000))
	w.dropped(t, chainUpstream, "no open gate")
	apply(t, w, nat.Entry{Inside: alice})
	wantPasses(t, cut, false, "cut off,")
	wantPasses(t, other, true, "of a neighbour")
	wantReaped(t, w, alice, 1)
	if got := run(t, w.Lab, "nft", "list", "set", "ip", testTable, setClosing); strings.Contains(got, alice.String()) {
		t.Errorf("after the reaping: %s", got)
	}
}

// TestClosingIsPutBack_DEL01: others who flush the set of subscribers being cut off let no packet
// of theirs pass for longer than the notice takes.
func TestClosingIsPutBack_DEL01(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	cut := w.flow(t, alice)
	apply(t, w, nat.Entry{Inside: alice})
	run(t, w.Lab, "nft", "flush", "set", "ip", testTable, setClosing)
	testenv.Eventually(t, "the set to be put back", func() bool {
		return strings.Contains(run(t, w.Lab, "nft", "list", "set", "ip", testTable, setClosing), alice.String())
	})
	wantPasses(t, cut, false, "cut off,")
	run(t, w.Lab, "nft", "flush", "set", "ip", testTable, setClosing)
	apply(t, w, blockOf(alice, nat.GateOpen, 2)) // also if its element is gone
	wantPasses(t, w.flow(t, alice), true, "of the address's next subscriber")
}

// TestKilledWhileClosing_I9_DEL01: a daemon that is killed between a cut and the reaping leaves
// subscribers that stay cut off. The next one reaps their flows, though nobody tells it to.
func TestKilledWhileClosing_I9_DEL01(t *testing.T) {
	lab := newLab(t)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
	if err != nil {
		t.Fatal(err)
	}
	killed := openForTraffic(t, labOptions(lab))
	w := wireTest{lab, killed, echo, captureInternet(t, lab)}
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	cut, other := w.flow(t, alice), w.flow(t, bob)
	apply(t, w, nat.Entry{Inside: alice})
	label := labelOf(t, killed)
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}

	w.Kernel = startKernel(t, labOptions(lab))
	if got := labelOf(t, w.Kernel); got != label {
		t.Errorf("the label is %x, was %x", got, label)
	}
	wantPasses(t, cut, false, "cut off by the killed daemon,")
	wantPasses(t, other, true, "of a neighbour")
	w.closing.add([]address{alice.As4()}, time.Now().Add(-closingPause))
	testenv.Eventually(t, "the flows to be reaped", func() bool { return w.SessionCount(alice) == 0 && w.closing.len() == 0 })
	wantPasses(t, other, true, "of a neighbour")
}

// TestReapingSparesTheNext_DEL06: while the flows of a subscriber whom a killed daemon left are reaped,
// the address's next subscriber begins its own. They stay.
func TestReapingSparesTheNext_DEL06(t *testing.T) {
	w := limitTest{newWireTest(t)}
	for round := range 40 {
		w.closing.add([]address{alice.As4()}, time.Now().Add(-2*closingPause))
		reaped := make(chan error)
		go func() { reaped <- w.lookAtShortWay(testContext(t)) }()
		testenv.Eventually(t, "the reaping to begin", func() bool {
			w.closing.mu.Lock()
			defer w.closing.mu.Unlock()
			m, closing := w.closing.members[alice.As4()]
			return !closing || !m.reaped.IsZero()
		})
		apply(t, w, blockOf(alice, nat.GateOpen, 0))
		if w.asks(t, alice, 5000, 1) != 1 {
			t.Fatal("the session does not begin")
		}
		if err := <-reaped; err != nil {
			t.Fatal(err)
		}
		if n := len(w.sessionsOf(t, alice)); n != 1 {
			t.Fatalf("in round %d the next subscriber has %d sessions, want the one that began", round, n)
		}
		apply(t, w, nat.Entry{Inside: alice})
		if _, err := w.Reap(testContext(t), []netip.Addr{alice}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlowsOfAnotherTable_I3: flows from before a table that was lost while no daemon ran pass
// by the gate alone.
func TestFlowsOfAnotherTable_I3(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	gone, stays := w.flow(t, alice), w.flow(t, bob)
	first := labelOf(t, w.Kernel)
	t.Run("no daemon", func(t *testing.T) {
		if err := w.Remove(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
	w.Kernel = startKernel(t, labOptions(w.Lab))
	if got := labelOf(t, w.Kernel); got == first {
		t.Errorf("the label is again that of flows from before: %x", got)
	}
	apply(t, w, blockOf(bob, nat.GateOpen, 1))
	wantPasses(t, gone, false, "of nobody,")
	wantPasses(t, stays, true, "of an online subscriber")
}

// TestTableLostWhileRunning_I9: a running daemon knows the owners, so flows keep their short way.
func TestTableLostWhileRunning_I9(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	cut, stays := w.flow(t, alice), w.flow(t, bob)
	label := labelOf(t, w.Kernel)
	apply(t, w, nat.Entry{Inside: alice})
	run(t, w.Lab, "nft", "flush", "ruleset")
	testenv.Eventually(t, "the table to be back", func() bool { // while it is being made its chains are empty
		return strings.Contains(run(t, w.Lab, "nft", "list", "ruleset"), "set "+setClosing)
	})
	wantPasses(t, stays, true, "of an online subscriber")
	wantPasses(t, cut, false, "cut off,")
	if got := labelOf(t, w.Kernel); got != label {
		t.Errorf("the label is %x, was %x", got, label)
	}
}

// TestManyAreCutOff_DEL01_DEL06: with more subscribers cut off at once than the set holds, no flow
// of theirs passes, and those of others go on; then a label begins that no flow has.
func TestManyAreCutOff_DEL01_DEL06(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
	cut, other := w.flow(t, alice), w.flow(t, bob)
	label := labelOf(t, w.Kernel)
	many := make([]address, closingMost)
	for i := range many {
		many[i] = address{100, 127, byte(i >> 8), byte(i)}
	}
	w.closing.add(many, time.Now())
	apply(t, w, nat.Entry{Inside: alice})
	if w.hasShortWay() {
		t.Error("packets still pass without a look at the gates")
	}
	wantPasses(t, cut, false, "cut off,")
	wantPasses(t, other, true, "of a neighbour")
	if err := w.lock(testContext(t)); err != nil {
		t.Fatal(err)
	}
	w.options.short.left = time.Now().Add(-relabelPause)
	w.unlock()
	testenv.Eventually(t, "the short way to begin again", w.hasShortWay)
	if got := labelOf(t, w.Kernel); got == label {
		t.Errorf("the label is that of flows from before: %x", got)
	}
	wantPasses(t, cut, false, "cut off,")
	wantPasses(t, other, true, "of a neighbour")
	wantReaped(t, w, alice, 1)
}

// TestManyWithFlows_DEL01: of many that are cut off in one call those with sessions are stopped
// before they are reaped.
func TestManyWithFlows_DEL01(t *testing.T) {
	w := newWireTest(t)
	entries := []nat.Entry{blockOf(alice, nat.GateOpen, 0)}
	for i := range 3 * heardChanges {
		entries = append(entries, blockOf(netip.AddrFrom4([4]byte{100, 64, 1, byte(i)}), nat.GateOpen, 1+i))
	}
	apply(t, w, entries...)
	cut := w.flow(t, alice)
	testenv.Eventually(t, "the index to know the session", func() bool { return w.SessionCount(alice) == 1 })
	for i := range entries {
		entries[i] = nat.Entry{Inside: entries[i].Inside}
	}
	apply(t, w, entries...)
	if got := w.closing.len(); got != 1 {
		t.Errorf("%d subscribers are being cut off, want the one with a session", got)
	}
	wantPasses(t, cut, false, "cut off,")
	wantReaped(t, w, alice, 1)
}

// TestAllLabelsAreTaken: without a free label all packets go by the gates, with an error.
func TestAllLabelsAreTaken(t *testing.T) {
	k := openKernel(t, labOptions(newLab(t)))
	var all conntrack.Labels
	for n := range conntrack.LabelCount {
		all.Or(conntrack.Label(n))
	}
	if err := k.relabel(testContext(t), all); err == nil || !strings.Contains(err.Error(), "conntrack labels") {
		t.Errorf("the error is %v", err)
	}
	if k.hasShortWay() || k.options.short.due() {
		t.Error("there is a label, or one is due at once")
	}
	k.options.short.left = time.Time{}
	if err := k.relabel(testContext(t), conntrack.Label(conntrack.LabelCount-1)); err != nil || labelOf(t, k) != conntrack.Label(conntrack.LabelCount-2) {
		t.Errorf("the label is %x: %v", labelOf(t, k), err)
	}
}

func TestClosingSet(t *testing.T) {
	c := newClosingSet()
	one, two := address{100, 64, 0, 1}, address{100, 64, 0, 2}
	now := time.Now()
	c.add([]address{two, one}, now)
	proof := func(inside address, at time.Time) []nat.Reaped {
		return []nat.Reaped{{Inside: inside.addr(), Proof: nat.ProofIndex, At: at}}
	}
	if c.prove(proof(one, now.Add(-time.Second))) || len(c.proved()) != 0 {
		t.Error("a proof from before the cut counts")
	}
	if c.prove(proof(address{100, 64, 0, 3}, now.Add(time.Second))) {
		t.Error("a proof of a stranger counts")
	}
	if !c.prove(proof(one, now.Add(time.Second))) || len(c.proved()) != 1 || c.proved()[0] != one {
		t.Errorf("proved are %v", c.proved())
	}
	if got := c.due(now, 2); len(got) != 0 {
		t.Errorf("due before the cut are %v", got)
	}
	if got := c.due(now.Add(time.Minute), 2); len(got) != 1 || got[0] != two {
		t.Errorf("due are %v, want the one without a proof", got)
	}
	three := address{100, 64, 0, 3}
	c.add([]address{two, three}, now.Add(-time.Hour))
	for _, want := range [][]address{{two}, {three}, nil} {
		if got := c.due(now, 1); !slices.Equal(got, want) {
			t.Errorf("due are %v, want %v: each in its turn", got, want)
		}
	}
	c.remove([]address{three})
	c.add([]address{one}, now.Add(time.Minute)) // cut off again
	if len(c.proved()) != 0 {
		t.Error("an earlier proof counts for another cut")
	}
	if got := c.all(); len(got) != 2 || got[0] != one.addr() {
		t.Errorf("members are %v", got)
	}
	c.remove([]address{one})
	if c.has(one) || !c.has(two) || c.len() != 1 {
		t.Errorf("members are %v", c.all())
	}
	if c.clear(); c.len() != 0 {
		t.Errorf("members are %v", c.all())
	}
}
