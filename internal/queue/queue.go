// Package queue hands work to one worker, which takes all that is waiting at once.
package queue

import (
	"context"
	"sync"
)

// A Queue has the items that wait for one worker. It may be used concurrently.
type Queue[T any] struct {
	mu    sync.Mutex
	parts [][]T // what waits, in order; all but the last have as much as is taken at once
	spare []T   // room for the next part
	wake  chan struct{}
	most  int // taken at once
}

// New returns an empty queue, of which at most so many items are taken at once.
func New[T any](most int) *Queue[T] {
	return &Queue[T]{wake: make(chan struct{}, 1), most: most}
}

// Push adds items and wakes the worker. It never blocks.
func (q *Queue[T]) Push(items ...T) {
	if len(items) == 0 {
		return
	}
	q.Add(items...)
	q.Wake()
}

// Wake wakes the worker.
func (q *Queue[T]) Wake() {
	select {
	case q.wake <- struct{}{}:
	default: // it is to wake already
	}
}

// Add is Push that does not wake the worker: for a caller that holds a lock which the worker
// needs, and wakes it afterwards.
func (q *Queue[T]) Add(items ...T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, item := range items {
		last := len(q.parts) - 1
		if last < 0 || len(q.parts[last]) == q.most {
			q.parts = append(q.parts, q.roomLocked(last >= 0))
			last++
		}
		q.parts[last] = append(q.parts[last], item)
	}
}

// roomLocked is room for a part: all that it may need where another is full already, as
// more is to be expected then.
func (q *Queue[T]) roomLocked(behind bool) []T {
	room := q.spare
	q.spare = nil
	if behind && cap(room) < q.most {
		room = make([]T, 0, q.most)
	}
	return room
}

// spareMost is how many items a queue keeps room for while nothing waits.
const spareMost = 4096

// Take waits until there is something and returns it, as far as it may be taken at
// once. The batch before, which the worker is done with, gives its room to what comes.
func (q *Queue[T]) Take(ctx context.Context, before []T) ([]T, error) {
	clear(before)
	for {
		if items := q.swap(before[:0]); len(items) > 0 {
			return items, nil
		}
		before = nil
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.wake:
		}
	}
}

// swap takes what is waiting, if anything is, and leaves room for what comes.
func (q *Queue[T]) swap(room []T) (items []T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(room) > cap(q.spare) {
		q.spare = room
	}
	if len(q.parts) == 0 {
		if cap(q.spare) > spareMost {
			q.spare = nil
		}
		return nil
	}
	items = q.parts[0]
	n := copy(q.parts, q.parts[1:])
	q.parts[n] = nil
	q.parts = q.parts[:n]
	return items
}
