package walk

import (
	"maps"
	"testing"
)

// lockCount counts how often a lock was given up and taken again.
type lockCount struct{ unlocked, locked int }

func (l *lockCount) Lock()   { l.locked++ }
func (l *lockCount) Unlock() { l.unlocked++ }

// TestWalkYields: a walk releases the lock after every Every items, and takes
// it again.
func TestWalkYields(t *testing.T) {
	items := map[int]int{}
	for i := range 3*Every + 1 {
		items[i] = i
	}
	var lock lockCount
	seen := 0
	for range All(&lock, maps.All(items)) {
		seen++
	}
	if seen != len(items) || lock.unlocked != 3 || lock.locked != 3 {
		t.Errorf("%d of %d items, and gave the lock up %d times; want all, and 3", seen, len(items), lock.unlocked)
	}
}
