package lsn

import (
	"math"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/fifo"
)

// hold is the end of one quarantine. It is void once its lease has another turn. A void
// hold stays in the queue until its time, because removing it earlier would cost more.
type hold struct {
	until time.Time
	heldRef
}

// before reports whether h ends before o; of equal ends the earlier begin is first.
func (h *hold) before(o *hold) bool {
	c := h.until.Compare(o.until)
	return c < 0 || c == 0 && h.turn < o.turn
}

// holdQueue orders holds by their end. Holds mostly begin in the order of their ends and
// then cost constant time. After a step of the clock, a change of the hold time, or a start
// from stored bindings they come in any order: those go to a heap.
type holdQueue struct {
	inOrder fifo.Queue[hold]
	late    holdHeap
}

func (q *holdQueue) len() int { return q.inOrder.Len() + len(q.late) }

func (q *holdQueue) push(h hold) {
	if all := q.inOrder.All(); len(all) > 0 && h.before(&all[len(all)-1]) {
		q.late.push(h)
		return
	}
	q.inOrder.Push(h)
}

// front returns the hold that ends first, or nil.
func (q *holdQueue) front() *hold {
	switch {
	case q.len() == 0:
		return nil
	case q.lateFirst():
		return &q.late[0]
	}
	return q.inOrder.Front()
}

// oldest returns a lower bound of the turns in the queue.
func (q *holdQueue) oldest() uint64 {
	switch {
	case len(q.late) > 0:
		return 0
	case q.inOrder.Len() > 0:
		return q.inOrder.Front().turn
	}
	return math.MaxUint64
}

// pop removes the hold that ends first.
func (q *holdQueue) pop() {
	if q.lateFirst() {
		q.late.pop()
		return
	}
	q.inOrder.Pop()
}

func (q *holdQueue) lateFirst() bool {
	return len(q.late) > 0 && (q.inOrder.Len() == 0 || q.late[0].before(q.inOrder.Front()))
}

// sweep drops the void holds.
func (q *holdQueue) sweep(void func(hold) bool) {
	q.inOrder.DeleteFunc(void)
	q.late = slices.DeleteFunc(q.late, void)
	for i := len(q.late)/arity + 1; i >= 0; i-- {
		q.late.down(i)
	}
}

// arity is the number of children of a heap's node.
const arity = 4

// holdHeap is a heap by end: the hold at index 0 ends first.
type holdHeap []hold

func (q *holdHeap) push(h hold) {
	*q = append(*q, h)
	q.up(len(*q) - 1)
}

func (q *holdHeap) pop() {
	n := len(*q) - 1
	(*q)[0] = (*q)[n]
	*q = (*q)[:n]
	q.down(0)
}

func (q holdHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / arity
		if !q[i].before(&q[parent]) {
			return
		}
		q[i], q[parent] = q[parent], q[i]
		i = parent
	}
}

func (q holdHeap) down(i int) {
	for {
		least := i
		for c := i*arity + 1; c <= i*arity+arity && c < len(q); c++ {
			if q[c].before(&q[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}
