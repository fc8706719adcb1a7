package lsn

import (
	"iter"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/nat"
)

// subscriberState is a group's state of one inside address. An address has a
// live lease or waits, never both; it may have held leases besides.
//
// The live lease is embedded, not referred to, so that one memory access reads both: in a
// large pool, such accesses are the cost of each step in a binding's life.
type subscriberState struct {
	lease
	held   heldRef // newest of its held leases, which are chained by heldLease.older
	waiter uint32  // its index in the wait queue
}

// live reports whether the subscriber has a live lease.
func (c *subscriberState) live() bool { return c.state != 0 }

// subscriberIndex finds subscribers by inside address. It never removes one, so
// that subscribers that come and go cost no allocations. A subscriber keeps its
// place in memory until another address is added.
type subscriberIndex struct {
	table addrtable.Table[subscriberState]
}

// at returns the subscriber of an address, and adds it if needed.
func (x *subscriberIndex) at(inside uint32) *subscriberState {
	a := address(inside)
	if c := x.table.Place(a); c != nil {
		return c
	}
	x.table.Put(a, subscriberState{})
	return x.table.Place(a)
}

// all yields the subscribers, by address.
func (x *subscriberIndex) all(yield func(uint32, *subscriberState) bool) { x.from(0)(yield) }

// from yields the subscribers, by address, from one address on.
func (x *subscriberIndex) from(first uint32) iter.Seq2[uint32, *subscriberState] {
	return func(yield func(uint32, *subscriberState) bool) {
		for a := range x.table.From(address(first)) {
			if !yield(number(a), x.table.Place(a)) {
				return
			}
		}
	}
}

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
