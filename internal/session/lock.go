package session

import (
	"slices"
	"sync"
)

// wakingLock is the lock of the life cycle. Who leaves it wakes the executors that he
// gave work: not before, or each would take the first piece and wait for the lock.
type wakingLock struct {
	sync.RWMutex
	wakes []chan struct{} // of those executors
}

// give puts work into a queue while the lock is held.
func give[T any](l *wakingLock, q *queue[T], item T) {
	q.add(item)
	if !slices.Contains(l.wakes, q.wake) {
		l.wakes = append(l.wakes, q.wake)
	}
}

// Unlock leaves the lock that was taken by Lock.
func (l *wakingLock) Unlock() {
	var room [8]chan struct{}
	wakes := append(room[:0], l.wakes...)
	l.wakes = l.wakes[:0]
	l.RWMutex.Unlock()
	for _, wake := range wakes {
		signal(wake)
	}
}
