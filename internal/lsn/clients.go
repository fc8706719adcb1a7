package lsn

import (
	"iter"

	"github.com/sessiond/sessiond/internal/addrtable"
)

// client is a group's data about one inside address. An address has a live lease or waits,
// never both; it may have held leases besides.
//
// The live lease is embedded, not referred to, so that one memory access reads both: in a
// large pool, such accesses are the cost of each step in a binding's life.
type client struct {
	lease
	held   heldRef // newest of its held leases, which are chained by heldLease.older
	waiter uint32  // its place in line
}

// live reports whether the client has a live lease.
func (c *client) live() bool { return c.state != 0 }

// clientIndex finds clients by their inside address. It removes none, so that subscribers
// that come and go cost no allocations. A pointer to a client is valid until another address
// gets its first client.
type clientIndex struct{ table addrtable.Table[client] }

// find returns the client of an address, nil for none.
func (x *clientIndex) find(inside uint32) *client { return x.table.Place(address(inside)) }

// at returns the client of an address, and creates it if necessary.
func (x *clientIndex) at(inside uint32) *client {
	if c := x.find(inside); c != nil {
		return c
	}
	x.table.Put(address(inside), client{})
	return x.find(inside)
}

// all yields the clients, by address.
func (x *clientIndex) all(yield func(uint32, *client) bool) { x.from(0)(yield) }

// from yields the clients, by address, from one address on.
func (x *clientIndex) from(first uint32) iter.Seq2[uint32, *client] {
	return func(yield func(uint32, *client) bool) {
		for a := range x.table.From(address(first)) {
			if !yield(number(a), x.table.Place(a)) {
				return
			}
		}
	}
}
