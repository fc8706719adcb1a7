package nftnat

import (
	"net/netip"
	"time"
)

// Gate is what the kernel does with the packets of one inside address.
type Gate uint8

// The zero Gate is Closed: no element, so the default drop applies.
const (
	Closed   Gate = iota // nothing passes, no map element names the address
	Open                 // everything passes, new flows are translated into the block
	Draining             // existing sessions pass, no new session begins
)

// Entry is the whole kernel state of one inside address.
type Entry struct {
	Inside      netip.Addr
	Gate        Gate
	Outside     netip.Addr // unset when Closed
	First, Last uint16     // port block, inclusive; unset when Closed
}

// Elements is how many map elements hold the entry: one of the gate map, one of
// the block map.
func (e Entry) Elements() int {
	if e.Gate == Closed {
		return 0
	}
	return 2
}

// Timeouts are the idle timeouts of conntrack entries, whole seconds.
type Timeouts struct {
	TCPEstablished time.Duration // RFC 5382 REQ-5: at least 2 h 4 min
	TCPTransitory  time.Duration // RFC 5382 REQ-5: at least 4 min
	UDP            time.Duration // RFC 4787 REQ-5: at least 2 min
	ICMP           time.Duration // RFC 5508 REQ-2: at least 60 s
}

// Proof says how it was found that nothing of an inside address is left.
type Proof uint8

// The proofs of a Receipt.
const (
	ProofIndex Proof = iota + 1 // the index of sessions, complete at that time, had none
	ProofTable                  // a walk through the whole conntrack table met none
)

// Receipt is the proof that nothing of a cut inside address is left.
type Receipt struct {
	Inside  netip.Addr
	Deleted int // conntrack entries deleted
	Proof   Proof
	At      time.Time // when the check found none left
}

// IndexStats count, since the start, what happened to the index of sessions.
type IndexStats struct {
	Overruns uint64 // times the kernel dropped events for want of buffer
	Missed   uint64 // entries that an audit found and that no event had told
	Stale    uint64 // entries that an audit found to have ended without an event
	Passes   uint64 // walks through the whole table, because the index could not prove
}
