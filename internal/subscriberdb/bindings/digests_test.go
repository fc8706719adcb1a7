package bindings

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// rowOf returns the stored form of a binding.
func rowOf(b nat.Binding) Row {
	return Row{Place: b.Place(), field: codec.FormatPlace(b.Place()), text: string(codec.AppendBinding(nil, &b))}
}

// TestDigestsDiffer: digests find all differences between stored bindings and those in
// force, and no others, in stretches of any length. Rows come in any order, some twice, and
// an inside address may have several bindings.
func TestDigestsDiffer(t *testing.T) {
	random := rand.New(rand.NewPCG(21, 22))
	for round := range 200 {
		var inForce []nat.Binding
		var rows []Row
		want := map[nat.Place]bool{}
		stale := func(b nat.Binding) {
			rows = append(rows, rowOf(b))
			want[b.Place()] = true
		}
		for i := range 1 + random.IntN(60) {
			b := named(outsideAt(random.IntN(4)), nat.Port(1024+512*i), "now")
			b.Inside = netip.AddrFrom4([4]byte{100, 64, 0, byte(i / 3)})
			inForce = append(inForce, b)
			switch random.IntN(8) {
			case 0: // not stored
				want[b.Place()] = true
			case 1: // stored with another name, and perhaps in its present form, too
				former := b
				former.UserName = "former"
				stale(former)
				if random.IntN(2) == 0 {
					rows = append(rows, rowOf(b))
				}
			case 2: // yielded twice
				rows = append(rows, rowOf(b), rowOf(b))
			case 3: // beside one that is not in force
				rows = append(rows, rowOf(b))
				b.Outside = outsideAt(9)
				stale(b)
			case 4: // stored for another subscriber
				b.Inside = away
				stale(b)
			case 5: // unreadable
				rows = append(rows, Row{Place: b.Place(), text: "nonsense"})
				want[b.Place()] = true
			default:
				rows = append(rows, rowOf(b))
			}
		}
		random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		digests := NewDigests(0)
		for some := range slices.Chunk(rows, 7) {
			digests.Add(some)
		}
		var found []nat.Place
		for from := 0; from < len(inForce) || from == 0; {
			to, next := from, netip.Addr{}
			for n := 1 + random.IntN(9); to < len(inForce); to++ {
				if to > from && inForce[to].Inside != inForce[to-1].Inside {
					if n--; n <= 0 {
						next = inForce[to].Inside
						break
					}
				}
			}
			found = digests.Differing(found, inForce[from:to], next)
			from = to
		}
		got := map[nat.Place]bool{}
		for _, p := range found {
			got[p] = true
		}
		if !maps.Equal(got, want) {
			t.Fatalf("round %d: differing are %v, want %v", round, got, want)
		}
	}
}

// TestDigestsWithoutBindings: with no binding in force all stored ones differ.
func TestDigestsWithoutBindings(t *testing.T) {
	b := named(outsideAt(1), 1024, "a")
	digests := NewDigests(1)
	digests.Add([]Row{rowOf(b)})
	if got := digests.Differing(nil, nil, netip.Addr{}); !slices.Equal(got, []nat.Place{b.Place()}) {
		t.Errorf("differing are %v", got)
	}
	if got := NewDigests(0).Differing(nil, nil, netip.Addr{}); len(got) > 0 {
		t.Errorf("nothing stored, and differing are %v", got)
	}
}
