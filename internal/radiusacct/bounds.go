package radiusacct

import (
	"encoding/binary"
	"net/netip"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// insideBounds are the inside addresses whose subscribers a client may report; nil for
// all. It never changes.
type insideBounds addrrange.Set

// newInsideBounds returns the bounds of IPv4 prefixes; nil for nil.
func newInsideBounds(prefixes []netip.Prefix) insideBounds {
	if prefixes == nil {
		return nil
	}
	return insideBounds(addrrange.Of(prefixes))
}

func number(a netip.Addr) uint32 {
	octets := a.As4()
	return binary.BigEndian.Uint32(octets[:])
}

// mark marks those of a request's events whose inside address is out of bounds.
func (b insideBounds) mark(first *subscriber.Event, more []subscriber.Event) {
	if b == nil {
		return
	}
	first.ForeignInside = !b.allow(first.Inside)
	for i := range more {
		more[i].ForeignInside = !b.allow(more[i].Inside)
	}
}

// allow reports whether the client may report the address. An event without an address is
// allowed.
func (b insideBounds) allow(a netip.Addr) bool {
	if !a.IsValid() {
		return true
	}
	return addrrange.Set(b).Contains(number(a))
}
