package lsn

import "slices"

// queue is a first-in first-out queue that allocates only to get longer than
// it ever was.
type queue[T any] struct {
	items []T // from items[head] on
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }

// all returns the items, first in first.
func (q *queue[T]) all() []T { return q.items[q.head:] }

func (q *queue[T]) push(x T) {
	if q.head > len(q.items)/2 { // more dead than alive: move to the front instead of growing
		q.items = q.items[:copy(q.items, q.all())]
		q.head = 0
	}
	q.items = append(q.items, x)
}

// front returns the first item of a queue that is not empty.
func (q *queue[T]) front() *T { return &q.items[q.head] }

// pop removes the first item of a queue that is not empty.
func (q *queue[T]) pop() T {
	q.head++
	return q.items[q.head-1]
}

// filter removes the items that are void.
func (q *queue[T]) filter(void func(T) bool) {
	q.items = slices.DeleteFunc(q.items[:copy(q.items, q.all())], void)
	q.head = 0
}
