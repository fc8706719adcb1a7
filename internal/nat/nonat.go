package nat

import (
	"net/netip"
	"slices"
)

// NoNAT are the sessions of some subscribers that keep their inside address and port: those to
// some destinations (RFC 6888 REQ-6).
type NoNAT struct {
	Inside      []netip.Prefix // of the subscribers
	Remote      netip.Prefix   // IPv4
	Protocol    uint8          // IP protocol number; 0 for TCP, UDP and ICMP
	First, Last uint16         // destination ports, inclusive; 0 and 65535 for all, and of ICMP
}

// Covers reports whether a session from an inside address to a remote address and port is one
// of them. ICMP has no ports.
func (n *NoNAT) Covers(protocol uint8, inside netip.Addr, remote netip.AddrPort) bool {
	return (n.Protocol == 0 || n.Protocol == protocol) && n.Remote.Contains(remote.Addr()) &&
		(n.AllPorts() || n.First <= remote.Port() && remote.Port() <= n.Last) &&
		slices.ContainsFunc(n.Inside, func(p netip.Prefix) bool { return p.Contains(inside) })
}

// AllPorts reports whether the ports do not matter.
func (n *NoNAT) AllPorts() bool { return n.First == 0 && n.Last == 65535 }
