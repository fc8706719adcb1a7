package lsn

// client is what a group knows of one inside address. An address is live or
// waits, never both; held leases may be there besides.
type client struct {
	live   uint32 // its live lease
	held   uint32 // newest of its held leases, which are chained by lease.older
	waiter uint32 // its place in line
}

// clientPage covers neighbouring addresses: subscribers come from few, dense prefixes.
type clientPage [64]client

// clientIndex finds clients by inside address. Pages stay once they are made,
// so that a subscriber population that comes and goes costs no allocations.
type clientIndex map[uint32]*clientPage

// find returns the client of an address, or nil when none was ever near.
func (x clientIndex) find(inside uint32) *client {
	p := x[inside/uint32(len(clientPage{}))]
	if p == nil {
		return nil
	}
	return &p[inside%uint32(len(p))]
}

// at returns the client of an address for writing.
func (x clientIndex) at(inside uint32) *client {
	n := inside / uint32(len(clientPage{}))
	p := x[n]
	if p == nil {
		p = new(clientPage)
		x[n] = p
	}
	return &p[inside%uint32(len(p))]
}
