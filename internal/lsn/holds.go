package lsn

import (
	"container/heap"
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
		heap.Push(&q.late, h)
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
		heap.Pop(&q.late)
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
	heap.Init(&q.late)
}

// holdHeap is a heap by end (container/heap): the hold at index 0 ends first.
type holdHeap []hold

func (q holdHeap) Len() int           { return len(q) }
func (q holdHeap) Less(i, j int) bool { return q[i].before(&q[j]) }
func (q holdHeap) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *holdHeap) Push(h any)        { *q = append(*q, h.(hold)) }

func (q *holdHeap) Pop() any {
	n := len(*q) - 1
	h := (*q)[n]
	*q = (*q)[:n]
	return h
}
