package nat

import (
	"net/netip"
	"time"
)

// Session is the view of one conntrack entry from a subscriber in it. An entry between two
// subscribers is two Sessions.
type Session struct {
	Protocol  uint8 // IANA number: 1 ICMP, 6 TCP, 17 UDP
	Inside    netip.AddrPort
	Outside   netip.AddrPort // same as Inside when the session is not translated
	Remote    netip.AddrPort
	State     string        // TCP state as conntrack prints it ("ESTABLISHED"), else "ASSURED", "REPLIED" or "UNREPLIED"; "OFFLOAD" or "HW_OFFLOAD" if Offloaded
	ExpiresIn time.Duration // until it idles out if no more packets pass; not known if Offloaded
	Offloaded bool          // a flowtable carries it, and the kernel tells neither its state nor its timeout
	Packets   uint64        // both directions; 0 when the kernel does not count
	Bytes     uint64        // both directions; 0 when the kernel does not count
	Direction Direction
}

// SessionCounts counts the sessions of one subscriber.
type SessionCounts struct {
	TCP, UDP, ICMP int
	Other          int // of other protocols, and with the machine itself
	Began          int // of all, those that the subscriber began
}

// Total returns the number of sessions.
func (n SessionCounts) Total() int { return n.TCP + n.UDP + n.ICMP + n.Other }

// OutsideEndpoint returns the outside address and port, with the protocol.
func (s *Session) OutsideEndpoint() Endpoint { return Endpoint{s.Protocol, s.Outside} }

// Forward returns the mapping that a session of its ports goes through.
func (s *Session) Forward() Forward { return Forward{s.Protocol, Port(s.Inside.Port()), s.Outside} }
