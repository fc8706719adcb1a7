package session

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSmallest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s := topN[int]{limit: r.IntN(5), compare: cmp.Compare[int]}
		var all []int
		for range r.IntN(20) {
			x := r.IntN(15)
			s.add(x)
			all = append(all, x)
		}
		slices.Sort(all)
		want := slices.Compact(all)
		if want = want[:min(len(want), s.limit)]; !slices.Equal(s.kept, want) {
			t.Fatalf("the %d smallest of %v: %v", s.limit, all, s.kept)
		}
	}
}
