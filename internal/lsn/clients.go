package lsn

// client is a group's data about one inside address. An address has a live lease or waits,
// never both; it may have held leases besides.
//
// The live lease is embedded, not referred to, so that one memory access reads both: in a
// large pool, such accesses are the cost of each step in a binding's life.
type client struct {
	lease
	held   heldRef // newest of its held leases, which are chained by heldLease.older
	waiter uint32  // its index in the wait queue
}

// live reports whether the client has a live lease.
func (c *client) live() bool { return c.state != 0 }

// clientIndex finds clients by the bits of their inside address. Subscribers come from few,
// dense prefixes: the upper levels stay in the processor's caches, and only the client
// itself comes from memory. Nothing is removed, so that subscribers who come and go cost no
// allocations.
type clientIndex [1 << 8]*[1 << 8]*[1 << 8]*clientPage

// clientPage covers the addresses of a /24.
type clientPage [1 << 8]client

// find returns the client of an address, or nil when its page does not exist.
func (x *clientIndex) find(inside uint32) *client {
	if y := x[inside>>24]; y != nil {
		if z := y[inside>>16&0xff]; z != nil {
			if page := z[inside>>8&0xff]; page != nil {
				return &page[inside&0xff]
			}
		}
	}
	return nil
}

// at returns the client of an address, and creates its page if necessary.
func (x *clientIndex) at(inside uint32) *client {
	if c := x.find(inside); c != nil {
		return c
	}
	page := made(&made(&made(&x[inside>>24])[inside>>16&0xff])[inside>>8&0xff])
	return &page[inside&0xff]
}

// made returns *p, and allocates it if it is nil.
func made[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

// all yields the clients of every page, by address.
func (x *clientIndex) all(yield func(uint32, *client) bool) {
	for net, page := range x.pages {
		for i := range page {
			if !yield(net|uint32(i), &page[i]) {
				return
			}
		}
	}
}

// pages yields every page with its first address.
func (x *clientIndex) pages(yield func(uint32, *clientPage) bool) {
	for net := uint32(0); ; net += 1 << 16 {
		if y := x[net>>24]; y != nil && y[net>>16&0xff] != nil {
			for i, page := range y[net>>16&0xff] {
				if page != nil && !yield(net|uint32(i)<<8, page) {
					return
				}
			}
		}
		if net == 0xffff<<16 {
			return
		}
	}
}
