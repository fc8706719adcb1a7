package lsn

import "github.com/sessiond/sessiond/internal/nat"

// waiter is one holder in the queue for a block.
type waiter struct {
	inside                  uint32
	identity, user, session string
	prev, next              uint32 // neighbours in the queue; next links the spare ones
}

func (w *waiter) holder() nat.Holder {
	return nat.Holder{Inside: address(w.inside), Identity: w.identity, UserName: w.user, AcctSessionID: w.session}
}

// waitQueue is a first-in first-out queue of the holders that wait for a block, with
// removal from anywhere. waiters[0] is the head of a circular list.
type waitQueue struct {
	waiters []waiter
	spare   uint32
	len     int
}

func newWaitQueue() waitQueue { return waitQueue{waiters: make([]waiter, 1)} }

// push puts h at the back and returns its index.
func (l *waitQueue) push(h nat.Holder) uint32 {
	w := l.spare
	if w == none {
		l.waiters = append(l.waiters, waiter{})
		w = uint32(len(l.waiters) - 1)
	} else {
		l.spare = l.waiters[w].next
	}
	last := l.waiters[0].prev
	l.waiters[w] = waiter{inside: number(h.Inside), prev: last}
	l.update(w, h)
	l.waiters[last].next, l.waiters[0].prev = w, w
	l.len++
	return w
}

// update replaces the holder's data at an index.
func (l *waitQueue) update(w uint32, h nat.Holder) {
	x := &l.waiters[w]
	x.identity, x.user, x.session = h.Identity, h.UserName, h.AcctSessionID
}

// remove takes an index out of the queue.
func (l *waitQueue) remove(w uint32) {
	x := l.waiters[w]
	l.waiters[x.prev].next = x.next
	l.waiters[x.next].prev = x.prev
	l.waiters[w] = waiter{next: l.spare}
	l.spare = w
	l.len--
}

// front returns the first index in the queue, or none.
func (l *waitQueue) front() uint32 { return l.waiters[0].next }
