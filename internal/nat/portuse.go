package nat

// PortUse is the number of ports that a subscriber uses, by protocol: of the inside ports (of
// ICMP the query identifiers) from which its own packets began translated sessions that have
// not ended. That is the number of its mappings (RFC 4787 section 1), so of the outside ports
// that it needs if no two mappings share one (RFC 4787 REQ-3). The kernel does let mappings to
// different remote hosts share a port, so a subscriber may use more than its blocks have.
//
// The ports of a block are there once for each protocol.
type PortUse struct{ TCP, UDP, ICMP int }

// Largest returns the largest of the numbers: the size of the smallest range of ports that
// has room for all.
func (u PortUse) Largest() int { return max(u.TCP, u.UDP, u.ICMP) }

// Max returns the larger number of each protocol.
func (u PortUse) Max(o PortUse) PortUse {
	return PortUse{max(u.TCP, o.TCP), max(u.UDP, o.UDP), max(u.ICMP, o.ICMP)}
}

// Plus returns the sums.
func (u PortUse) Plus(o PortUse) PortUse {
	return PortUse{u.TCP + o.TCP, u.UDP + o.UDP, u.ICMP + o.ICMP}
}
