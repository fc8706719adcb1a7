package nftnat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
)

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
