package session

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// lockCount counts how often a lock was given up and taken again.
type lockCount struct{ unlocked, locked int }

func (l *lockCount) Lock()   { l.locked++ }
func (l *lockCount) Unlock() { l.unlocked++ }

func TestWalkBreathes(t *testing.T) {
	items := map[int]int{}
	for i := range 3*yieldEvery + 1 {
		items[i] = i
	}
	var lock lockCount
	seen := 0
	for range walk(&lock, maps.All(items)) {
		seen++
	}
	if seen != len(items) || lock.unlocked != 3 || lock.locked != 3 {
		t.Errorf("%d of %d items, %d breaths; want all, and 3", seen, len(items), lock.unlocked)
	}
}

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
