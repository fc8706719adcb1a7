// Package fifo is a first-in first-out queue.
package fifo

import "slices"

// A Queue allocates only when it becomes longer than ever before. Its zero value is empty.
type Queue[T any] struct {
	items []T // from items[head] on
	head  int
}

// From returns a queue of items, and owns the slice from then on.
func From[T any](items []T) Queue[T] { return Queue[T]{items: items} }

// Len returns the number of items.
func (q *Queue[T]) Len() int { return len(q.items) - q.head }

// All returns the items, first in first, until the next change.
func (q *Queue[T]) All() []T { return q.items[q.head:] }

// Push puts an item at the end.
func (q *Queue[T]) Push(x T) {
	if q.head > len(q.items)/2 { // mostly removed items: move to the front instead of growing
		q.settle()
	}
	q.items = append(q.items, x)
}

// settle moves the items to the front.
func (q *Queue[T]) settle() {
	n := copy(q.items, q.items[q.head:])
	clear(q.items[n:])
	q.items, q.head = q.items[:n], 0
}

// Front returns the first item of a queue that is not empty, until the next change.
func (q *Queue[T]) Front() *T { return &q.items[q.head] }

// Pop removes the first item of a queue that is not empty.
func (q *Queue[T]) Pop() T {
	var zero T
	x := q.items[q.head]
	q.items[q.head] = zero // releases its pointers to the garbage collector
	q.head++
	return x
}

// DeleteFunc removes the items for which del returns true.
func (q *Queue[T]) DeleteFunc(del func(T) bool) {
	q.settle()
	q.items = slices.DeleteFunc(q.items, del)
}
