// Package walk iterates over items that a lock guards, and yields the lock at
// intervals.
package walk

import (
	"iter"
	"sync"
)

// Every is the number of items that a walk visits before it yields the lock.
// With a million subscribers a walk takes seconds, and a cut must not wait for
// it.
const Every = 512

// All yields the items of an index that the caller has locked, and yields the
// lock at intervals. The index may change meanwhile: an item that is added or
// removed may be left out.
func All[K, V any](lock sync.Locker, items iter.Seq2[K, V]) iter.Seq2[K, V] {
	return By(Every, lock, items)
}

// By is All with another number of items between two yields of the lock.
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

// Yield releases the lock and takes it again, so that others can have it.
func Yield(lock sync.Locker) {
	lock.Unlock()
	lock.Lock()
}
