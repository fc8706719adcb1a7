package session

import (
	"context"
	"sync"
)

// A queue hands work from the life cycle to one executor, which takes what is waiting
// at once. push never blocks. Whoever holds the Manager's lock gives instead, and the
// executor is woken with the lock free and everything there.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{}
	most  int // taken at once
}

// takeMost bounds what an executor works on at once: a start gives it a million pieces
// of work, for each of which it needs room, and whose end it reports under the lock.
const takeMost = 16_384

func newQueue[T any](most int) *queue[T] {
	return &queue[T]{wake: make(chan struct{}, 1), most: most}
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

// take waits until there is something and returns it, as far as it may be taken at
// once. The batch before, which its executor is done with, gives its room to what comes.
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
	if len(items) > q.most {
		q.items = items[q.most:]
		return items[:q.most:q.most]
	}
	q.items = room
	return items
}
