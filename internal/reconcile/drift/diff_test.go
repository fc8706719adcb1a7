package drift

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

const (
	gateOpen     = nat.GateOpen
	gateDraining = nat.GateDraining
	blockSize    = 512
)

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
}

// blockOf returns the block that the world's engine gives to address i.
func blockOf(i int) nat.Block {
	first := nat.Port(1024 + i%64*blockSize)
	return nat.Block{Outside: netip.AddrFrom4([4]byte{198, 51, byte(i >> 14), byte(i >> 6)}), First: first, Last: first + blockSize - 1}
}

func elementOf(gate nat.Gate, b nat.Block) nat.Entry {
	return nat.Entry{Gate: gate, Block: b}
}

func recordOf(i int) subscriber.Record {
	return subscriber.Record{
		Key:       subscriber.Key{Group: "g", Inside: address(i)},
		SessionID: subscriber.SessionID{Client: "c", NAS: "n", AcctSessionID: fmt.Sprint("s", i)},
		UserName:  fmt.Sprint("u", i), Version: fmt.Sprintf("%d-0", 1000+i),
	}
}

// world is a set of views that a test can change.
type world struct {
	Views
	sessions map[Session]struct{}
}

func newWorld() *world {
	w := &world{sessions: map[Session]struct{}{}}
	w.Database = Database{map[netip.Addr]subscriber.Packed{}, map[nat.Place]nat.Binding{}}
	w.Engine = Engine{map[netip.Addr]Slot{}, map[nat.Place]nat.Binding{}}
	w.Kernel.Elements = map[netip.Addr]nat.Entry{}
	return w
}

func (w *world) put(r subscriber.Record) { w.Database.Records[r.Inside] = r.Pack() }

func (w *world) diff() []Operation {
	w.Kernel.Sessions = func(yield func(Session) bool) {
		for s := range w.sessions {
			if !yield(s) {
				return
			}
		}
	}
	return Diff(&w.Views)
}

// online makes all three views agree that the subscriber is served.
func (w *world) online(r subscriber.Record, b nat.Block) {
	w.put(r)
	w.Engine.Slots[r.Inside] = Slot{
		Online: true, Identity: IdentityOf(&r), Version: r.Version, Bound: true, Blocks: nat.Blocks{Block: b}, Element: elementOf(gateOpen, b),
	}
	row := nat.Binding{Blocks: nat.Blocks{Block: b}, Holder: nat.Holder{Inside: r.Inside, UserName: r.UserName}}
	w.Engine.Bindings[b.Place()], w.Database.Bindings[b.Place()] = row, row
	w.Kernel.Elements[r.Inside] = elementOf(gateOpen, b)
	w.sessions[session(r.Inside, b, b.First+7)] = struct{}{}
}

// further gives an online subscriber further blocks.
func (w *world) further(r subscriber.Record, first nat.Block, further ...nat.Block) {
	s, row := w.Engine.Slots[r.Inside], w.Database.Bindings[first.Place()]
	for _, b := range further {
		row.Blocks, _ = row.With(b)
	}
	s.Blocks, s.Element.Block = row.Blocks, row.Newest()
	w.Engine.Slots[r.Inside], w.Kernel.Elements[r.Inside] = s, s.Element
	w.Database.Bindings[first.Place()], w.Engine.Bindings[first.Place()] = row, row
}

func session(inside netip.Addr, b nat.Block, port nat.Port) Session {
	return Session{Session: nat.Session{
		Inside: netip.AddrPortFrom(inside, 40000), Outside: netip.AddrPortFrom(b.Outside, uint16(port)),
	}}
}

func TestDiff_NAT40(t *testing.T) {
	t.Parallel()
	a, b := address(1), blockOf(1)
	slot := func(w *world, change func(*Slot)) {
		s := w.Engine.Slots[a]
		change(&s)
		w.Engine.Slots[a] = s
	}
	for name, tt := range map[string]struct {
		disturb func(w *world)
		want    string // "kind address" of each operation, sorted
	}{
		"all agree": {func(*world) {}, ""},

		"record without a slot": {func(w *world) { w.put(recordOf(2)) }, "record_unseen 100.64.0.2"},
		"record, slot not online": {func(w *world) {
			slot(w, func(s *Slot) { s.Online = false; s.Element.Gate = gateDraining })
			w.Kernel.Elements[a] = elementOf(gateDraining, b)
		}, "record_unseen 100.64.0.1"},
		"record of another session": {func(w *world) {
			r := recordOf(1)
			r.AcctSessionID = "other"
			w.put(r)
		}, "record_unseen 100.64.0.1"},
		"record with newer data": {func(w *world) {
			r := recordOf(1)
			r.Version = "9999-0"
			w.put(r)
		}, " 100.64.0.1"},
		"record with older data": {func(w *world) {
			r := recordOf(1)
			r.Version = "1-0"
			w.put(r)
		}, ""},
		"record that knows less": {func(w *world) {
			w.put(subscriber.Record{Key: subscriber.Key{Group: "g", Inside: a}, Version: "1-0"})
		}, ""},

		"block without a gate, nobody's": {func(w *world) {
			w.Kernel.Elements[address(7)] = elementOf(0, b)
		}, "element_orphaned 100.64.0.7"},
		"binding without a record": {func(w *world) { delete(w.Database.Records, a) }, "binding_orphaned 100.64.0.1"},
		"record without a binding": {func(w *world) {
			slot(w, func(s *Slot) { s.Bound, s.Blocks, s.Element = false, nat.Blocks{}, nat.Entry{} })
			delete(w.Engine.Bindings, b.Place())
			delete(w.Database.Bindings, b.Place())
			delete(w.Kernel.Elements, a)
			clear(w.sessions)
		}, "record_unbound 100.64.0.1"},
		"record that waits for a block": {func(w *world) {
			slot(w, func(s *Slot) { s.Bound, s.Pending, s.Blocks, s.Element = false, true, nat.Blocks{}, nat.Entry{} })
			delete(w.Engine.Bindings, b.Place())
			delete(w.Database.Bindings, b.Place())
			delete(w.Kernel.Elements, a)
			clear(w.sessions)
		}, ""},

		"element without a slot":   {func(w *world) { w.Kernel.Elements[address(2)] = elementOf(gateOpen, blockOf(2)) }, "element_orphaned 100.64.0.2"},
		"element of a closed gate": {func(w *world) { slot(w, func(s *Slot) { s.Element = nat.Entry{} }) }, "element_orphaned 100.64.0.1"},
		"element of a stray slot":  {func(w *world) { slot(w, func(s *Slot) { s.Stray, s.Element = true, nat.Entry{} }) }, ""},
		"element with another block": {func(w *world) { w.Kernel.Elements[a] = elementOf(gateOpen, blockOf(2)) },
			"element_differs 100.64.0.1"},
		"element with another gate": {func(w *world) { w.Kernel.Elements[a] = elementOf(gateDraining, b) }, "element_differs 100.64.0.1"},
		"no element":                {func(w *world) { delete(w.Kernel.Elements, a) }, "element_missing 100.64.0.1"},

		"binding not stored": {func(w *world) { delete(w.Database.Bindings, b.Place()) }, "binding_unsaved 100.64.0.1"},
		"binding stored for another": {func(w *world) {
			w.Database.Bindings[b.Place()] = nat.Binding{Blocks: nat.Blocks{Block: b}, Holder: nat.Holder{Inside: address(2)}}
		}, "binding_unsaved 100.64.0.1"},
		"binding stored as held": {func(w *world) {
			row := w.Database.Bindings[b.Place()]
			row.State = nat.Held
			w.Database.Bindings[b.Place()] = row
		}, "binding_unsaved 100.64.0.1"},
		"stored binding not in force": {func(w *world) {
			w.Database.Bindings[blockOf(2).Place()] = nat.Binding{Blocks: nat.Blocks{Block: blockOf(2)}, Holder: nat.Holder{Inside: address(2)}}
		}, "binding_stale 100.64.0.2"},

		"further block, stored": {func(w *world) { w.further(recordOf(1), b, blockOf(2), blockOf(3)) }, ""},
		"further block, not stored": {func(w *world) {
			w.further(recordOf(1), b, blockOf(2))
			row := w.Database.Bindings[b.Place()]
			row.Blocks = nat.Blocks{Block: b}
			w.Database.Bindings[b.Place()] = row
		}, "binding_unsaved 100.64.0.1"},
		"further block with a row of its own": {func(w *world) {
			w.further(recordOf(1), b, blockOf(2))
			w.Database.Bindings[blockOf(2).Place()] = nat.Binding{Blocks: nat.Blocks{Block: blockOf(2)}, Holder: nat.Holder{Inside: a}}
		}, "binding_stale 100.64.0.1"},
		"element with an earlier block": {func(w *world) {
			w.further(recordOf(1), b, blockOf(2))
			w.Kernel.Elements[a] = elementOf(gateOpen, b)
		}, "element_differs 100.64.0.1"},
		"sessions in all blocks": {func(w *world) {
			w.further(recordOf(1), b, blockOf(3))
			w.sessions[session(a, b, b.Last)], w.sessions[session(a, b, blockOf(3).First)] = struct{}{}, struct{}{}
		}, ""},
		"session between blocks": {func(w *world) {
			w.further(recordOf(1), b, blockOf(3))
			w.sessions[session(a, b, blockOf(2).First)] = struct{}{}
		}, "session_outofblock 100.64.0.1"},

		"session without a binding":  {func(w *world) { w.sessions[session(address(2), b, b.First)] = struct{}{} }, "session_orphaned 100.64.0.2"},
		"session below the block":    {func(w *world) { w.sessions[session(a, b, b.First-1)] = struct{}{} }, "session_outofblock 100.64.0.1"},
		"session above the block":    {func(w *world) { w.sessions[session(a, b, b.Last+1)] = struct{}{} }, "session_outofblock 100.64.0.1"},
		"session on another address": {func(w *world) { w.sessions[session(a, blockOf(64), b.First)] = struct{}{} }, "session_outofblock 100.64.0.1"},
		"sessions at the block's ends": {func(w *world) {
			w.sessions[session(a, b, b.First)], w.sessions[session(a, b, b.Last)] = struct{}{}, struct{}{}
		}, ""},
		"session with the CGN itself": {func(w *world) {
			at := netip.AddrPortFrom(address(2), 40000)
			w.sessions[Session{Session: nat.Session{Inside: at, Outside: at}}] = struct{}{}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.online(recordOf(1), b)
			w.online(recordOf(9), blockOf(9)) // a neighbour
			tt.disturb(w)
			var got []string
			for _, o := range w.diff() {
				got = append(got, string(o.Kind)+" "+o.Inside.String())
				if o.Kind != Newer && o.What() == "" {
					t.Errorf("%s says nothing", o.Kind)
				}
			}
			slices.Sort(got)
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("operations %q, want %q", got, tt.want)
			}
		})
	}
}

// TestWhatTheKernelHas: an entry of one map alone is described without a block.
func TestWhatTheKernelHas(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.online(recordOf(1), blockOf(1))
	w.Kernel.Elements[address(1)] = nat.Entry{Gate: gateOpen}
	w.Kernel.Elements[address(2)] = elementOf(gateOpen, blockOf(2))
	got := map[netip.Addr]string{}
	for _, o := range w.diff() {
		got[o.Inside] = o.What()
	}
	b := blockOf(2)
	want := map[netip.Addr]string{
		address(1): fmt.Sprintf("kernel has no block, gate %d; programmed anew", gateOpen),
		address(2): fmt.Sprintf("kernel elements without a binding (%s ports %d-%d, gate %d); removed", b.Outside, b.First, b.Last, gateOpen),
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRecordsComeFirst: operations on gates and blocks depend on the online
// subscribers.
func TestRecordsComeFirst(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for i := range 50 {
		w.online(recordOf(i), blockOf(i))
		switch i % 5 {
		case 0:
			delete(w.Database.Records, address(i))
		case 1:
			delete(w.Engine.Slots, address(i))
		case 2:
			delete(w.Kernel.Elements, address(i))
		case 3:
			delete(w.Database.Bindings, blockOf(i).Place())
		}
	}
	others := false
	for _, o := range w.diff() {
		if o.AboutRecord() && others {
			t.Fatalf("%s %s comes after another kind", o.Kind, o.Inside)
		}
		others = others || !o.AboutRecord()
	}
	if !others {
		t.Error("nothing else was found")
	}
}

func TestKindsHaveNames(t *testing.T) {
	t.Parallel()
	about := map[inspect.DriftKind]bool{
		Newer: true, inspect.DriftRecordUnseen: true, inspect.DriftRecordUnbound: true, inspect.DriftBindingOrphaned: true,
		inspect.DriftElementMissing: false, inspect.DriftBindingStale: false, inspect.DriftSessionOrphaned: false,
	}
	for kind, want := range about {
		if o := (Operation{Kind: kind}); o.AboutRecord() != want || o.What() != "" {
			t.Errorf("%q: about records %t, says %q", kind, o.AboutRecord(), o.What())
		}
	}
}
