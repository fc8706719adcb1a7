package audit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// sealed is a stored entry.
type sealed struct{ text, hash string }

func chain(t testing.TB, first Head, n int) (entries []sealed, last Head) {
	t.Helper()
	head := first
	for i := range n {
		e := Entry{
			Trail: "default", At: time.Unix(int64(i), 0).UTC(), Node: "cgn1", Actor: "user:0",
			Method: "DeleteSubscribers", Count: 1, Keys: []string{fmt.Sprintf("100.64.0.%d", i)}, Outcome: Done,
		}
		text, next, err := Seal(e, head)
		if err != nil {
			t.Fatal(err)
		}
		entries, head = append(entries, sealed{text, next.Hash}), next
	}
	return entries, head
}

func verify(entries []sealed, first, last Head, known bool) *Flaw {
	v := NewVerifier("default", first)
	for _, e := range entries {
		if !v.Check(e.text, e.hash) {
			break
		}
	}
	return v.End(last, known)
}

// TestChainNamesTheFirstBadEntry: each kind of damage is found, at its entry.
func TestChainNamesTheFirstBadEntry(t *testing.T) {
	first := Head{41, "hash of the last that was removed"}
	whole, last := chain(t, first, 5) // 42 to 46
	resealed := func(e *Entry) sealed {
		text, next, err := Seal(*e, Head{e.Number - 1, e.Before})
		if err != nil {
			t.Fatal(err)
		}
		return sealed{text, next.Hash}
	}
	forged := func(i int) sealed {
		e, err := ParseEntry(whole[i].text)
		if err != nil {
			t.Fatal(err)
		}
		e.Actor = "user:1000"
		return resealed(&e)
	}
	for name, c := range map[string]struct {
		damage func(list []sealed) []sealed
		known  bool
		number uint64
		kind   FlawKind
	}{
		"none":             {func(l []sealed) []sealed { return l }, true, 0, ""},
		"text":             {func(l []sealed) []sealed { l[2].text = strings.Replace(l[2].text, "user:0", "user:1", 1); return l }, true, 44, Changed},
		"hash":             {func(l []sealed) []sealed { l[2].hash = HashOf("other"); return l }, true, 44, Changed},
		"sealed anew":      {func(l []sealed) []sealed { l[2] = forged(2); return l }, true, 44, Changed},
		"first anew":       {func(l []sealed) []sealed { l[0] = forged(0); return l }, true, 42, Changed},
		"last anew":        {func(l []sealed) []sealed { l[4] = forged(4); return l }, true, 46, Changed},
		"dropped":          {func(l []sealed) []sealed { return slices.Delete(l, 2, 3) }, true, 44, Missing},
		"first dropped":    {func(l []sealed) []sealed { return l[1:] }, true, 42, Missing},
		"next to last":     {func(l []sealed) []sealed { return slices.Delete(l, 3, 4) }, true, 45, Missing},
		"swapped":          {func(l []sealed) []sealed { l[1], l[2] = l[2], l[1]; return l }, true, 43, Swapped},
		"moved to the end": {func(l []sealed) []sealed { return append(slices.Delete(l, 1, 2), whole[1]) }, true, 43, Missing},
		"twice":            {func(l []sealed) []sealed { return slices.Insert(l, 3, whole[2]) }, true, 44, Swapped},
		"truncated":        {func(l []sealed) []sealed { return l[:3] }, true, 45, Truncated},
		"emptied":          {func([]sealed) []sealed { return nil }, true, 42, Truncated},
		"no end":           {func(l []sealed) []sealed { return l }, false, 47, Truncated},
		"garbage":          {func(l []sealed) []sealed { l[1] = sealed{"{", HashOf("{")}; return l }, true, 43, Changed},
	} {
		flaw := verify(c.damage(slices.Clone(whole)), first, last, c.known)
		switch {
		case c.kind == "" && flaw != nil:
			t.Errorf("%s: %+v", name, *flaw)
		case c.kind != "" && (flaw == nil || flaw.Number != c.number || flaw.Kind != c.kind):
			t.Errorf("%s: flaw %+v, want %d %s", name, flaw, c.number, c.kind)
		}
	}
}

// TestEntryOfAnotherTrail: an entry cannot stand in for one of another trail.
func TestEntryOfAnotherTrail(t *testing.T) {
	text, next, err := Seal(Entry{Trail: "east"}, Head{})
	if err != nil {
		t.Fatal(err)
	}
	if flaw := verify([]sealed{{text, next.Hash}}, Head{}, next, true); flaw == nil || flaw.Kind != Swapped {
		t.Errorf("flaw %+v, want SWAPPED", flaw)
	}
}

// TestChainUnderRandomDamage: whatever is flipped, dropped, doubled, swapped or cut off, the
// chain is not whole, and the flaw is not behind the damage.
func TestChainUnderRandomDamage(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 7))
		n := 2 + r.IntN(12)
		list, last := chain(t, Head{}, n)
		at := r.IntN(n)
		switch r.IntN(5) {
		case 0:
			text := []byte(list[at].text)
			text[r.IntN(len(text))] ^= byte(1 << r.IntN(7))
			list[at].text = string(text)
		case 1:
			list = slices.Delete(list, at, at+1)
		case 2:
			list = slices.Insert(list, at, list[at])
		case 3:
			other := r.IntN(n)
			if other == at {
				continue
			}
			list[at], list[other] = list[other], list[at]
			at = min(at, other)
		case 4:
			list = list[:at]
		}
		flaw := verify(list, Head{}, last, true)
		if flaw == nil || flaw.Number > uint64(at)+2 {
			t.Fatalf("seed %d: damage at entry %d of %d, flaw %+v", seed, at+1, n, flaw)
		}
	}
}

func FuzzVerifier(f *testing.F) {
	list, last := chain(f, Head{}, 2)
	f.Add(list[0].text, list[0].hash, list[1].text)
	f.Fuzz(func(t *testing.T, text, hash, second string) {
		flaw := verify([]sealed{{text, hash}, {second, HashOf(second)}}, Head{}, last, true)
		if flaw == nil && (text != list[0].text || second != list[1].text) {
			t.Errorf("accepted %q, %q", text, second)
		}
	})
}
