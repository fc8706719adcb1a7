package lsn

import "github.com/sessiond/sessiond/internal/nat"

// waiter is one holder in line for a block.
type waiter struct {
	inside                  uint32
	identity, user, session string
	prev, next              uint32 // neighbours in line; next links the spare ones
}

func (w *waiter) holder() nat.Holder {
	return nat.Holder{Inside: address(w.inside), Identity: w.identity, UserName: w.user, AcctSessionID: w.session}
}

// waitQueue is the first-in first-out queue of those who wait for a block, with
// removal from anywhere. Its first element is the head of a circular list.
type waitQueue struct {
	waiters []waiter
	spare   uint32
	len     int
}

func newLine() waitQueue { return waitQueue{waiters: make([]waiter, 1)} }

// push puts h at the back and returns its place.
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

// update replaces what is known of the holder at a place.
func (l *waitQueue) update(w uint32, h nat.Holder) {
	x := &l.waiters[w]
	x.identity, x.user, x.session = h.Identity, h.UserName, h.AcctSessionID
}

// remove takes a place out of the line.
func (l *waitQueue) remove(w uint32) {
	x := l.waiters[w]
	l.waiters[x.prev].next = x.next
	l.waiters[x.next].prev = x.prev
	l.waiters[w] = waiter{next: l.spare}
	l.spare = w
	l.len--
}

// front returns the first place in line, or none.
func (l *waitQueue) front() uint32 { return l.waiters[0].next }
