package session

import (
	"context"
	"sync"
)

// A queue hands work from the life cycle to one executor, which takes all that
// is waiting at once. push never blocks. Whoever holds the Manager's lock gives
// instead, and the executor is woken with the lock free and everything there.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{}
}

func newQueue[T any]() *queue[T] {
	return &queue[T]{wake: make(chan struct{}, 1)}
}

func (q *queue[T]) push(items ...T) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	signal(q.wake)
}

func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// keepMost is how many items a queue keeps room for.
const keepMost = 4096

// take waits until there is something and returns all of it. The batch before,
// which its executor is done with, gives its room to what comes.
func (q *queue[T]) take(ctx context.Context, before []T) ([]T, error) {
	clear(before)
	if cap(before) > keepMost {
		before = nil
	}
	for {
		if items := q.swap(before[:0]); len(items) > 0 {
			return items, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.wake:
		}
	}
}

// swap takes what is waiting, if anything is, and leaves room for what comes.
func (q *queue[T]) swap(room []T) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil
	}
	items := q.items
	q.items = room
	return items
}
