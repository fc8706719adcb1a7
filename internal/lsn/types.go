package lsn

import (
	"net/netip"
	"time"
)

// Port is a transport port or an ICMP query identifier (RFC 5508 section 3.1).
type Port uint16

// Block is an aligned, power-of-two range of ports on one outside address.
type Block struct {
	Outside     netip.Addr
	First, Last Port // inclusive
}

// GroupConfig describes one LSN group. Prefixes are IPv4.
type GroupConfig struct {
	Name      string
	Inside    []netip.Prefix
	Outside   []netip.Prefix
	FirstPort Port          // at least 1024 (RFC 4787 REQ-7 keeps 0-1023 apart)
	LastPort  Port          // inclusive
	BlockSize int           // ports per block, a power of two
	Hold      time.Duration // quarantine before another subscriber may get a block (RFC 6888 REQ-8)

	Grace       time.Duration // how long a subscriber may come back to live sessions; 0: not at all
	GraceCauses []uint32      // Acct-Terminate-Causes that grant it, see GraceFor
}

// State is the stage of a binding's life.
type State uint8

// A binding goes Active -> Cut -> Held, or Active -> Draining -> Cut -> Held;
// a Draining one may become Active again. After Held it is gone.
const (
	Active State = iota + 1
	Draining
	Cut
	Held
)

// Holder says whom a binding belongs to.
type Holder struct {
	Inside        netip.Addr
	Identity      string // who gets its own held block back; "" never matches
	UserName      string
	AcctSessionID string
}

// Binding is the lease of one block to one holder.
type Binding struct {
	Group string
	Block
	Holder
	State       State
	AllocatedAt time.Time
	ReleasedAt  time.Time // when the record ended; zero while Active
	HoldUntil   time.Time // set when Held
	GraceUntil  time.Time // Draining: until when its subscriber may have it back; zero for not
	Receipt     *Receipt  // what its teardown came to so far, from Cut on; never changed, but replaced
}

// Usage counts the blocks of one outside prefix of a group.
type Usage struct {
	Group                   string
	Outside                 netip.Prefix
	Total, Used, Held, Free int  // Total = Used + Held + Free
	Draining                bool // no longer configured: gives no blocks, is listed while it has bindings
}
