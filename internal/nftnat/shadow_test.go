package nftnat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// TestDiffWalk takes a shadow through random calls and keeps beside it, for each
// address, the last state it was given.
func TestDiffWalk(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s, model := new(shadow), make(map[netip.Addr]nat.Entry)
	for range 2_000 {
		entries := randomEntries(random)
		changes, err := diff(s, entries)
		if err != nil {
			t.Fatal(err)
		}
		checkOrder(t, changes)
		var made []change
		for _, part := range split(changes, 16<<10+300) {
			s.apply(part)
			made = append(made, part...)
		}
		if !slices.Equal(made, changes) {
			t.Fatalf("split made %d changes of %d", len(made), len(changes))
		}
		if again, err := diff(s, entries); err != nil || len(again) > 0 {
			t.Fatalf("a second call would change %v: %v", again, err)
		}
		for _, e := range entries {
			model[e.Inside] = e
			if e.Gate == nat.GateClosed {
				delete(model, e.Inside)
			}
		}
		checkModel(t, s, model)
	}
}

// diff returns the changes that Apply makes, from a shadow that knows everything.
func diff(s *shadow, entries []nat.Entry) ([]change, error) {
	list, err := wanted(entries)
	return s.missing(list), err
}

func randomEntries(random *rand.Rand) []nat.Entry {
	entries := make([]nat.Entry, random.IntN(12))
	for i := range entries {
		inside := netip.AddrFrom4([4]byte{100, 64, 0, byte(random.IntN(20))})
		entries[i] = blockOf(inside, nat.Gate(random.IntN(3)), random.IntN(4))
	}
	return entries
}

// checkOrder checks that nothing is given out before everything is cut.
func checkOrder(t *testing.T, changes []change) {
	t.Helper()
	opened := false
	for _, c := range changes {
		cut := c.to == (cell{})
		if cut && opened {
			t.Fatalf("a cut comes after other changes: %v", changes)
		}
		opened = opened || !cut
	}
}

func checkModel(t *testing.T, s *shadow, model map[netip.Addr]nat.Entry) {
	t.Helper()
	got, _ := s.entriesFrom(netip.Addr{}, 1000)
	if len(got) != len(model) {
		t.Fatalf("%d entries, want %d", len(got), len(model))
	}
	for _, e := range got {
		if model[e.Inside] != e {
			t.Fatalf("entry %v, want %v", e, model[e.Inside])
		}
	}
}

func TestNoElementBehindTheLastAddress(t *testing.T) {
	if got := elementsOf(addrrange.Set{{Last: 0xffffffff}}); len(got) != 1 {
		t.Errorf("the range of all addresses has %d elements, want 1: there is none after its end", len(got))
	}
}

// FuzzElements checks that appended elements are read back, and that parsers
// take any bytes.
func FuzzElements(f *testing.F) {
	f.Add([]byte{}, uint32(0x64400001), uint32(0xc6336401), uint16(1024), uint16(1535), true)
	f.Add([]byte{8, 0, 1, 128, 4, 0, 1, 0}, uint32(0), uint32(0), uint16(0), uint16(0), false)
	f.Fuzz(func(t *testing.T, junk []byte, inside, outside uint32, first, last uint16, open bool) {
		parseGate(junk)
		parseBlock(junk)
		parseMember(junk)
		parseShape(junk)
		findMark(junk)
		parseForwarding(junk)

		in, out := addressOf(inside), addressOf(outside)
		want := block{out, first, last}
		if a, b, ok := parseBlock(appendBlock(nil, in, want)); !ok || a != in || b != want {
			t.Errorf("block %v of %v is read back as %v of %v: %t", want, in, b, a, ok)
		}
		g := nat.GateDraining
		if open {
			g = nat.GateOpen
		}
		if a, b, ok := parseGate(appendGate(nil, in, g)); !ok || a != in || b != g {
			t.Errorf("gate %v of %v is read back as %v of %v: %t", g, in, b, a, ok)
		}
	})
}

func addressOf(v uint32) address {
	return address{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}
