package conntrack

import (
	"net/netip"
	"time"
)

// Tuple is one direction of a conntrack entry. For ICMP the source port holds
// the query identifier and the destination port type and code.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Protocol         uint8 // IANA number: 1 ICMP, 6 TCP, 17 UDP
}

// Entry is one conntrack entry as the kernel reports it.
type Entry struct {
	Orig, Reply    Tuple
	Zone           uint16 // of the original direction; 0 is the default zone
	ID             uint32 // kernel's identifier of the entry, so that a delete never hits a successor
	Status         uint32 // StatusSeenReply and others
	TCPState       uint8  // kernel enum tcp_conntrack; 0 when not TCP
	Timeout        time.Duration
	Packets, Bytes uint64 // both directions; 0 when nf_conntrack_acct is off
}

// Bits of an Entry's Status, the kernel's enum ip_conntrack_status.
const (
	StatusSeenReply             = 1 << 1
	StatusAssured               = 1 << 2
	StatusConfirmed             = 1 << 3 // the entry was there before this packet
	StatusDestinationTranslated = 1 << 5 // IPS_DST_NAT
)
