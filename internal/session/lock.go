package session

import (
	"slices"
	"sync"

	"github.com/sessiond/sessiond/internal/queue"
)

// wakingLock is the lock of the life cycle. Unlock wakes the executors that got
// work while the lock was held. Woken earlier, each would take the first piece
// and block on this lock.
type wakingLock struct {
	sync.RWMutex
	given []waker // queues that got work
}

// waker is the queue of an executor.
type waker interface{ Wake() }

// enqueue puts work into a queue while the lock is held.
func enqueue[T any](l *wakingLock, q *queue.Queue[T], item T) {
	q.Add(item)
	if !slices.Contains(l.given, waker(q)) {
		l.given = append(l.given, q)
	}
}

// Unlock releases the lock, and wakes the executors that got work.
func (l *wakingLock) Unlock() {
	var room [8]waker
	wakes := append(room[:0], l.given...)
	l.given = l.given[:0]
	l.RWMutex.Unlock()
	for _, q := range wakes {
		q.Wake()
	}
}
