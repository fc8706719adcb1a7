package drift

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// apply makes the changes in the world that the life cycle finally makes for an
// operation.
func (w *world) apply(o *Operation) {
	switch o.Kind {
	case Newer:
		s := w.Engine.Slots[o.Inside]
		s.Version, s.Identity = o.Record.Version, IdentityOf(o.Record)
		w.Engine.Slots[o.Inside] = s
	case inspect.DriftRecordUnseen:
		w.teardown(o.Inside)
		w.online(*o.Record, w.freeBlock(o.Inside))
	case inspect.DriftRecordUnbound:
		packed := w.Database.Records[o.Inside]
		w.online(packed.Record(), w.freeBlock(o.Inside))
	case inspect.DriftBindingOrphaned:
		w.teardown(o.Inside)
	case inspect.DriftElementMissing, inspect.DriftElementDiffers:
		if s := w.Engine.Slots[o.Inside]; closed(&s.Element) {
			delete(w.Kernel.Elements, o.Inside)
		} else {
			w.Kernel.Elements[o.Inside] = s.Element
		}
	case inspect.DriftElementOrphaned:
		w.teardownKernel(o.Inside, o.Element)
	case inspect.DriftBindingUnsaved:
		if b, ok := w.Engine.Bindings[o.Blocks.Place()]; ok {
			w.Database.Bindings[o.Blocks.Place()] = b
		}
	case inspect.DriftBindingStale:
		if _, ok := w.Engine.Bindings[o.Blocks.Place()]; !ok {
			delete(w.Database.Bindings, o.Blocks.Place())
		}
	case inspect.DriftSessionOrphaned, inspect.DriftSessionOutOfBlock:
		delete(w.sessions, o.Session)
	}
}

// teardown cuts and reaps the address; its live block is held afterwards.
func (w *world) teardown(inside netip.Addr) {
	delete(w.Engine.Slots, inside)
	delete(w.Kernel.Elements, inside)
	for s := range w.sessions {
		if s.Inside.Addr() == inside {
			delete(w.sessions, s)
		}
	}
	for at, b := range w.Engine.Bindings {
		if b.Inside == inside && b.State != nat.Held {
			b.State = nat.Held
			w.Engine.Bindings[at], w.Database.Bindings[at] = b, b
		}
	}
}

// teardownKernel removes elements without a binding and the sessions that used
// them, unless an earlier operation has given them a binding.
func (w *world) teardownKernel(inside netip.Addr, found nat.Entry) {
	s := w.Engine.Slots[inside]
	if w.Kernel.Elements[inside] != found || s.Element == found {
		return
	}
	delete(w.Kernel.Elements, inside)
	for x := range w.sessions {
		if x.Inside.Addr() == inside && !s.Blocks.Contains(x.Outside.Addr(), nat.Port(x.Outside.Port())) {
			delete(w.sessions, x)
		}
	}
}

// freeBlock returns an unused block.
func (w *world) freeBlock(inside netip.Addr) nat.Block {
	a := inside.As4()
	for i := 1000 + int(a[2])<<8 + int(a[3]); ; i += 5000 {
		if _, taken := w.Engine.Bindings[blockOf(i).Place()]; !taken {
			return blockOf(i)
		}
	}
}

// disturb changes one of the views about address i, and returns the affected
// addresses.
func (w *world) disturb(rnd *rand.Rand, i, n int) []netip.Addr {
	a, b := address(i), blockOf(i)
	s, served := w.Engine.Slots[a]
	switch rnd.IntN(15) {
	case 0:
		delete(w.Database.Records, a)
	case 1:
		r := recordOf(i)
		r.AcctSessionID, r.Version = "other", "5000-0"
		w.put(r)
	case 2:
		r := recordOf(i)
		r.Version = "6000-0"
		w.put(r)
	case 3:
		delete(w.Kernel.Elements, a)
	case 4:
		w.Kernel.Elements[a] = elementOf(gateOpen, blockOf(rnd.IntN(n)))
	case 5:
		w.Kernel.Elements[a] = elementOf(gateDraining, b)
	case 6:
		delete(w.Database.Bindings, b.Place())
	case 7:
		other := rnd.IntN(n)
		w.Database.Bindings[b.Place()] = nat.Binding{Blocks: nat.Blocks{Block: b}, Holder: nat.Holder{Inside: address(other)}}
		return []netip.Addr{a, address(other)}
	case 8:
		stale := blockOf(9000 + i)
		w.Database.Bindings[stale.Place()] = nat.Binding{Blocks: nat.Blocks{Block: stale}, Holder: nat.Holder{Inside: a}, State: []nat.State{nat.Active, nat.Held}[rnd.IntN(2)]}
	case 9:
		w.sessions[session(a, b, nat.Port(rnd.IntN(65536)))] = struct{}{}
	case 10:
		w.sessions[session(a, blockOf(rnd.IntN(n)), blockOf(i).First)] = struct{}{}
	case 11: // the engine lost it, as after a start without stored bindings
		if served {
			delete(w.Engine.Slots, a)
			delete(w.Engine.Bindings, s.Blocks.Place())
		}
	case 12: // ended with the toggle off
		if served && s.Online {
			s.Online, s.Element.Gate = false, gateDraining
			w.Engine.Slots[a] = s
			w.Kernel.Elements[a] = s.Element
			delete(w.Database.Records, a)
		}
	case 13: // a further block is not stored
		if row, ok := w.Database.Bindings[b.Place()]; ok {
			row.Blocks = nat.Blocks{Block: b}
			w.Database.Bindings[b.Place()] = row
		}
	case 14: // a further block is not programmed
		if served {
			w.Kernel.Elements[a] = elementOf(s.Element.Gate, b)
		}
	}
	return []netip.Addr{a}
}

// disagreement searches for a difference in the simplest way; "" means none.
func (w *world) disagreement() string {
	for a, packed := range w.Database.Records {
		r := packed.Record()
		if s := w.Engine.Slots[a]; !s.Online || !s.Bound || s.Identity != IdentityOf(&r) || s.Version < r.Version {
			return "record of " + a.String()
		}
	}
	for a, s := range w.Engine.Slots {
		if _, ok := w.Database.Records[a]; s.Online && !ok {
			return "slot of " + a.String()
		}
		if w.Kernel.Elements[a] != s.Element {
			return "element of " + a.String()
		}
	}
	for a := range w.Kernel.Elements {
		if _, ok := w.Engine.Slots[a]; !ok {
			return "element without a slot of " + a.String()
		}
	}
	if !maps.Equal(w.Engine.Bindings, w.Database.Bindings) {
		return "stored bindings"
	}
	for x := range w.sessions {
		b := w.Engine.Slots[x.Inside.Addr()].Blocks
		if !b.Contains(x.Outside.Addr(), nat.Port(x.Outside.Port())) {
			return "session of " + x.Inside.Addr().String()
		}
	}
	return ""
}

// TestConvergence_NAT40: the operations make any three views agree, and none
// concerns an address about which the views agree.
func TestConvergence_NAT40(t *testing.T) {
	t.Parallel()
	const n = 40
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 40))
		w := newWorld()
		for i := range n {
			if rnd.IntN(4) > 0 {
				w.online(recordOf(i), blockOf(i))
			}
			if _, ok := w.Engine.Slots[address(i)]; ok && n+i < 64 && rnd.IntN(2) > 0 { // of the same outside address
				w.further(recordOf(i), blockOf(i), blockOf(n+i))
			}
		}
		disturbed := map[netip.Addr]bool{}
		for range rnd.IntN(40) {
			for _, a := range w.disturb(rnd, rnd.IntN(n), n) {
				disturbed[a] = true
			}
		}
		operations := w.diff()
		for i := range operations {
			o := &operations[i]
			if !disturbed[o.Inside] {
				t.Fatalf("seed %d: %s about %s, where all agree", seed, o.Kind, o.Inside)
			}
		}
		for i := range operations {
			w.apply(&operations[i])
		}
		if what := w.disagreement(); what != "" {
			t.Fatalf("seed %d: after %d operations they disagree: %s", seed, len(operations), what)
		}
		if rest := w.diff(); len(rest) > 0 {
			t.Fatalf("seed %d: %d operations, then still %s about %s: %s", seed, len(operations), rest[0].Kind, rest[0].Inside, rest[0].What())
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	const n = 100_000
	w := newWorld()
	for i := range n {
		w.online(recordOf(i), blockOf(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		if found := w.diff(); len(found) > 0 {
			b.Fatal(found[0].What())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/subscriber")
}
