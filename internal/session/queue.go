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
	parts [][]T // what waits, in order; all but the last have as much as is taken at once
	spare []T   // room for the next part
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
	q.add(items...)
	signal(q.wake)
}

// add is push that wakes nobody.
func (q *queue[T]) add(items ...T) {
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
func (q *queue[T]) roomLocked(behind bool) []T {
	room := q.spare
	q.spare = nil
	if behind && cap(room) < q.most {
		room = make([]T, 0, q.most)
	}
	return room
}

func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// keepMost is how many items a queue keeps room for while nothing waits.
const keepMost = 4096

// take waits until there is something and returns it, as far as it may be taken at
// once. The batch before, which its executor is done with, gives its room to what comes.
func (q *queue[T]) take(ctx context.Context, before []T) ([]T, error) {
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
func (q *queue[T]) swap(room []T) (items []T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(room) > cap(q.spare) {
		q.spare = room
	}
	if len(q.parts) == 0 {
		if cap(q.spare) > keepMost {
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
