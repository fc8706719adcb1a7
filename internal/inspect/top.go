package inspect

import (
	"cmp"
	"net/netip"
	"time"
)

// TopBy is a measure of how busy subscribers are.
type TopBy uint8

// The measures.
const (
	TopSessions    TopBy = iota + 1 // conntrack entries
	TopNewSessions                  // new ones a second, over a window
	TopPorts                        // in use, of the protocol with the most
	TopOctets                       // in both directions, as the NAS counted them
	TopBlocks                       // of its binding; only of those with several
)

// TopQuery picks the busiest subscribers.
type TopQuery struct {
	By      TopBy
	Limit   int
	Group   string
	Outside netip.Prefix  // of the bindings
	Window  time.Duration // for TopNewSessions
}

// Top is one of the busiest subscribers. Of one that is not online, and whose removal is not
// complete, only the holder is known.
type Top struct {
	Inside   netip.Addr
	Value    float64
	Sessions int // conntrack entries
	Who      Subscriber
}

// CompareTop orders by value, the largest first, then by inside address.
func CompareTop(a, b Top) int {
	return cmp.Or(cmp.Compare(b.Value, a.Value), a.Inside.Compare(b.Inside))
}
