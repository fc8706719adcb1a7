// Package walk goes over items that a lock guards, and lets others have the lock now and then.
package walk

import (
	"iter"
	"sync"
)

// Every is how many items a walk looks at before it lets others have the lock. At a
// million subscribers a walk takes seconds, and a cut must not wait for it.
const Every = 512

// All yields the items of an index, which its caller has locked, and lets others
// have the lock now and then. They may change it: an item that comes or goes meanwhile
// may be left out.
func All[K, V any](lock sync.Locker, items iter.Seq2[K, V]) iter.Seq2[K, V] {
	return By(Every, lock, items)
}

// By is All for items of another cost.
func By[K, V any](every int, lock sync.Locker, items iter.Seq2[K, V]) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		seen := 0
		for k, v := range items {
			if !yield(k, v) {
				return
			}
			if seen++; seen%every == 0 {
				Yield(lock)
			}
		}
	}
}

// Yield gives the lock up for a moment.
func Yield(lock sync.Locker) {
	lock.Unlock()
	lock.Lock()
}
