package session

import (
	"slices"
	"sync"

	"github.com/sessiond/sessiond/internal/queue"
)

// wakingLock is the lock of the life cycle. Unlock wakes the executors that were given work
// under it: woken earlier, each would take the first piece and wait for the lock.
type wakingLock struct {
	sync.RWMutex
	given []waker // queues that work was put into
}

// waker is the queue of an executor.
type waker interface{ Wake() }

// give puts work into a queue while the lock is held.
func give[T any](l *wakingLock, q *queue.Queue[T], item T) {
	q.Add(item)
	if !slices.Contains(l.given, waker(q)) {
		l.given = append(l.given, q)
	}
}

// Unlock leaves the lock that was taken by Lock.
func (l *wakingLock) Unlock() {
	var room [8]waker
	wakes := append(room[:0], l.given...)
	l.given = l.given[:0]
	l.RWMutex.Unlock()
	for _, q := range wakes {
		q.Wake()
	}
}
