package radiusacct

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// An addressRange is a range of inside addresses, both ends included.
type addressRange struct{ first, last uint32 }

// insideBounds are the inside addresses whose subscribers a client may report, as sorted
// ranges with gaps between them; nil for all. It never changes. Every packet of a bound
// client is looked up, which takes some nanoseconds for hundreds of prefixes
// (BenchmarkBounds).
type insideBounds []addressRange

// newInsideBounds returns the bounds of IPv4 prefixes; nil for nil.
func newInsideBounds(prefixes []netip.Prefix) insideBounds {
	if prefixes == nil {
		return nil
	}
	all := make([]addressRange, 0, len(prefixes))
	for _, p := range prefixes {
		first := number(p.Masked().Addr())
		all = append(all, addressRange{first, first | uint32(uint64(1)<<(32-p.Bits())-1)})
	}
	slices.SortFunc(all, func(a, b addressRange) int { return cmp.Compare(a.first, b.first) })
	joined := make(insideBounds, 0, len(all))
	for _, r := range all {
		if n := len(joined); n > 0 && uint64(r.first) <= uint64(joined[n-1].last)+1 {
			joined[n-1].last = max(joined[n-1].last, r.last)
		} else {
			joined = append(joined, r)
		}
	}
	return joined
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
	n := number(a)
	low, high := 0, len(b)
	for low < high {
		if middle := int(uint(low+high) >> 1); b[middle].last < n {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low < len(b) && b[low].first <= n
}
