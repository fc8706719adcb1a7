package lsn

import (
	"iter"

	"github.com/sessiond/sessiond/internal/addrtable"
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

// find returns the subscriber of an address, nil for none.
func (x *subscriberIndex) find(inside uint32) *subscriberState { return x.table.Place(address(inside)) }

// at returns the subscriber of an address, and adds it if needed.
func (x *subscriberIndex) at(inside uint32) *subscriberState {
	if c := x.find(inside); c != nil {
		return c
	}
	x.table.Put(address(inside), subscriberState{})
	return x.find(inside)
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
