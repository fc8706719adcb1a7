package session

import (
	"iter"
	"slices"
	"sync"
)

// breathEvery is how many items a walk looks at before it lets others have the
// lock. At a million subscribers a walk takes seconds, and a cut must not wait
// for it.
const yieldEvery = 512

// walk yields the items of an index, which its caller has locked, and lets others
// have the lock now and then. They may change it: an item that comes or goes meanwhile
// may be left out.
func walk[K, V any](lock sync.Locker, items iter.Seq2[K, V]) iter.Seq2[K, V] {
	return walkBy(yieldEvery, lock, items)
}

// walkBy is walk for items of another cost.
func walkBy[K, V any](every int, lock sync.Locker, items iter.Seq2[K, V]) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		seen := 0
		for k, v := range items {
			if !yield(k, v) {
				return
			}
			if seen++; seen%every == 0 {
				yieldLock(lock)
			}
		}
	}
}

// yieldLock lets others have the lock.
func yieldLock(lock sync.Locker) {
	lock.Unlock()
	lock.Lock()
}

// topN keeps, in order, the first few of all that is added; of equals the
// last one.
type topN[T any] struct {
	limit   int
	compare func(a, b T) int
	kept    []T
}

func (s *topN[T]) add(x T) {
	if n := len(s.kept); n == s.limit && (n == 0 || s.compare(x, s.kept[n-1]) > 0) {
		return
	}
	i, there := slices.BinarySearchFunc(s.kept, x, s.compare)
	if there {
		s.kept[i] = x
		return
	}
	s.kept = slices.Insert(s.kept, i, x)
	s.kept = s.kept[:min(len(s.kept), s.limit)]
}
