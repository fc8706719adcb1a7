package nat

import (
	"fmt"
	"net/netip"
)

// Gate is the kernel's rule for the packets of one inside address.
type Gate uint8

// The zero Gate is closed: no element, so the default drop applies.
const (
	GateClosed   Gate = iota // no packet passes, no map element names the address
	GateOpen                 // all packets pass, new flows are translated into the block
	GateDraining             // existing sessions pass, no new session begins
)

// Entry is the whole kernel state of one inside address.
type Entry struct {
	Inside netip.Addr
	Gate   Gate

	// Block has the ports into which new sessions are translated: blocks of the binding that
	// adjoin each other (Blocks.Range). Established sessions are translated by conntrack,
	// and keep their ports. It is unset when the gate is closed.
	Block

	// Forwards are the mappings of the address. Only an open gate has any: what others begin
	// through a mapping is a new session.
	Forwards Forwards
}

// Elements returns the number of map elements of the entry: one of the gate
// map, one of the block map, two of each mapping.
func (e Entry) Elements() int {
	if e.Gate == GateClosed {
		return 0
	}
	return 2 + 2*e.Forwards.Len()
}

// Check returns an error if the kernel cannot have the entry: an address is not IPv4, the gate
// is unknown, a gate that is not closed has no block, or one that is not open has mappings.
func (e *Entry) Check() error {
	switch {
	case !e.Inside.Is4():
		return fmt.Errorf("nat: inside address %v is not IPv4", e.Inside)
	case e.Gate != GateOpen && e.Forwards != (Forwards{}):
		return fmt.Errorf("nat: the gate of %v is not open, but it has mappings", e.Inside)
	case e.Gate == GateClosed:
		return nil
	case e.Gate > GateDraining:
		return fmt.Errorf("nat: gate %d of %v is unknown", e.Gate, e.Inside)
	case !e.Outside.Is4():
		return fmt.Errorf("nat: outside address %v of %v is not IPv4", e.Outside, e.Inside)
	case e.First == 0 || e.Last < e.First:
		return fmt.Errorf("nat: port block %d-%d of %v is empty", e.First, e.Last, e.Inside)
	}
	return nil
}

// Direction tells which side sent the first packet of a session.
type Direction uint8

// The directions of a session.
const (
	Outbound Direction = iota + 1 // the subscriber sent the first packet
	Inbound                       // a remote host sent the first packet
)
