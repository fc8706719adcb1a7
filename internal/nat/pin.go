package nat

import "net/netip"

// Pin says in which ports new sessions get their outside port, where that is not the range of all
// new sessions. It is of one inside port: then Block is the block in which that port's sessions
// are, so that it keeps its mapping (RFC 4787 REQ-1). Or it is of one remote endpoint, to which
// most ports lead: then Block is the part of a block that has free ones.
type Pin struct {
	Protocol uint8          // TCP or UDP, by its IP number
	Port     Port           // the inside port; 0 with a remote endpoint
	Remote   netip.AddrPort // the remote endpoint; invalid for an inside port
	Block    Block
}

// ComparePins orders pins: those of remote endpoints first, then by protocol and port.
func ComparePins(a, b Pin) int {
	switch {
	case a.Remote.IsValid() != b.Remote.IsValid():
		if a.Remote.IsValid() {
			return -1
		}
		return 1
	case a.Protocol != b.Protocol:
		return int(a.Protocol) - int(b.Protocol)
	case a.Remote != b.Remote:
		return a.Remote.Compare(b.Remote)
	}
	return int(a.Port) - int(b.Port)
}
