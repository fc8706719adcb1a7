package nat

import "net/netip"

// Limits bound what one subscriber may open (RFC 6888 REQ-4, REQ-5). 0 is no limit. Open
// sessions stay open at a limit (REQ-11D).
type Limits struct {
	Sessions             int // concurrent sessions that the subscriber began
	NewSessionsPerSecond int
	TCPPorts, UDPPorts   int // inside ports with sessions of the protocol that the subscriber began

	// Reserve is the part of Sessions that the subscriber has even where the conntrack table is
	// nearly full: above it, sessions begin only while there is room for everybody. 0 reserves
	// nothing.
	Reserve int
}

// PrefixLimits are the limits of each address in some inside prefixes.
type PrefixLimits struct {
	Inside []netip.Prefix
	Limits
}

// AnyLimits reports whether a list has a limit.
func AnyLimits(list []PrefixLimits) bool {
	for _, l := range list {
		if l.Limits != (Limits{}) && len(l.Inside) > 0 {
			return true
		}
	}
	return false
}

// LimitsAt returns the limits of an inside address. No two prefixes of a list overlap.
func LimitsAt(list []PrefixLimits, inside netip.Addr) Limits {
	for i := range list {
		for _, p := range list[i].Inside {
			if p.Contains(inside) {
				return list[i].Limits
			}
		}
	}
	return Limits{}
}

// SessionsWhile returns the number of sessions that may be open at once, 0 for no limit: the
// reserve while the conntrack table is scarce, if there is one.
func (l *Limits) SessionsWhile(scarce bool) int {
	if scarce && l.Reserve > 0 && (l.Sessions == 0 || l.Reserve < l.Sessions) {
		return l.Reserve
	}
	return l.Sessions
}

// Limit names one of the Limits.
type Limit uint8

// The limits at which a subscriber is refused new sessions.
const (
	LimitSessions Limit = iota // or the reserve
	LimitNewSessions
	LimitTCPPorts
	LimitUDPPorts

	LimitCount // the number of limits
)

// String returns the key of the limit in the configuration, which metrics use as well.
func (l Limit) String() string {
	return [LimitCount]string{"sessions", "new_sessions_per_second", "tcp_ports", "udp_ports"}[l]
}

// ParseLimit is the reverse of String.
func ParseLimit(name string) (Limit, bool) {
	for l := range LimitCount {
		if l.String() == name {
			return l, true
		}
	}
	return 0, false
}

// A Refusal is a subscriber that was refused new sessions at a limit.
type Refusal struct {
	Inside netip.Addr
	Limit  Limit
}
