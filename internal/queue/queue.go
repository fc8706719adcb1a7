// Package queue hands work to one worker, which takes it in batches.
package queue

import (
	"context"
	"sync"
)

// A Queue has the items for one worker. It may be used concurrently.
type Queue[T any] struct {
	mu    sync.Mutex
	parts [][]T // queued items, in order; each but the last has length most
	spare []T   // memory for the next part
	wake  chan struct{}
	most  int // items per batch
}

// New returns an empty queue with batches of at most the given size.
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
	default: // a wake-up is pending already
	}
}

// Add is Push without waking the worker: for a caller that holds a lock that
// the worker needs, and wakes it afterwards.
func (q *Queue[T]) Add(items ...T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, item := range items {
		last := len(q.parts) - 1
		if last < 0 || len(q.parts[last]) == q.most {
			room := q.spare
			if last >= 0 && cap(room) < q.most { // behind a full part more items are likely
				room = make([]T, 0, q.most)
			}
			q.spare = nil
			q.parts = append(q.parts, room)
			last++
		}
		q.parts[last] = append(q.parts[last], item)
	}
}

// spareMost is the largest capacity, in items, that an empty queue keeps.
const spareMost = 4096

// Dequeue waits for items, and returns the next batch. It reuses the memory of the
// previous batch, before, which the worker no longer needs.
func (q *Queue[T]) Dequeue(ctx context.Context, before []T) ([]T, error) {
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

// swap returns the first part, if there is one, and keeps room for later items.
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
