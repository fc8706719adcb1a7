package nat

import "net/netip"

// Port is a transport port or an ICMP query identifier (RFC 5508 section 3.1).
type Port uint16

// Block is an aligned, power-of-two range of ports on one outside address.
type Block struct {
	Outside     netip.Addr
	First, Last Port // inclusive
}

// Contains reports whether a port of an outside address is one of the block's.
func (b Block) Contains(outside netip.Addr, p Port) bool {
	return outside == b.Outside && b.First <= p && p <= b.Last
}

// Place returns where the block begins.
func (b Block) Place() Place { return Place{b.Outside, b.First} }

// Place names a block among all: no two bindings share the first port of an outside address
// (I1).
type Place struct {
	Outside netip.Addr
	First   Port
}
