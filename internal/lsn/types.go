package lsn

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// GroupConfig describes one LSN group. Prefixes are IPv4.
type GroupConfig struct {
	Name      string
	Inside    []netip.Prefix
	Outside   []netip.Prefix
	FirstPort nat.Port      // at least 1024 (RFC 4787 REQ-7 keeps 0-1023 apart)
	LastPort  nat.Port      // inclusive
	BlockSize int           // ports per block, a power of two
	Hold      time.Duration // quarantine before another subscriber may get a block (RFC 6888 REQ-8)

	Grace       time.Duration // time in which a subscriber may come back to live sessions; 0: none
	GraceCauses []uint32      // Acct-Terminate-Causes that grant it, see GraceFor
}

// Usage counts the blocks of one outside prefix of a group.
type Usage struct {
	Group                   string
	Outside                 netip.Prefix
	Total, Used, Held, Free int  // Total = Used + Held + Free
	Draining                bool // no longer configured: gives no blocks, is listed while it has bindings
}
