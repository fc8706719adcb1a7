package nat

import "net/netip"

// Port is a transport port or an ICMP query identifier (RFC 5508 section 3.1).
type Port uint16

// Block is an aligned, power-of-two range of ports on one outside address.
type Block struct {
	Outside     netip.Addr
	First, Last Port // inclusive
}

// Contains reports whether the block has this port of the outside address.
func (b Block) Contains(outside netip.Addr, p Port) bool {
	return outside == b.Outside && b.First <= p && p <= b.Last
}

// Place returns the block's place.
func (b Block) Place() Place { return Place{b.Outside, b.First} }

// Place is where a block begins. It is unique: no two bindings share the first
// port of an outside address (I1).
type Place struct {
	Outside netip.Addr
	First   Port
}

// Blocks are the blocks of one binding. The first one gives the binding its
// place.
type Blocks struct {
	Block
}
