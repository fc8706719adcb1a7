package nftnat

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
)

// span is a range of IPv4 addresses, both ends included.
type span struct{ first, last uint32 }

// spansOf turns prefixes into ranges that neither overlap nor touch, in order:
// the kernel refuses overlapping elements of an interval set.
func spansOf(prefixes []netip.Prefix) []span {
	spans := make([]span, 0, len(prefixes))
	for _, p := range prefixes {
		base := p.Masked().Addr().As4()
		first := binary.BigEndian.Uint32(base[:])
		spans = append(spans, span{first, first | math.MaxUint32>>p.Bits()})
	}
	slices.SortFunc(spans, func(a, b span) int { return int(int64(a.first) - int64(b.first)) })
	merged := spans[:0]
	for _, s := range spans {
		if n := len(merged); n > 0 && uint64(s.first) <= uint64(merged[n-1].last)+1 {
			merged[n-1].last = max(merged[n-1].last, s.last)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// elementsOf writes ranges as the kernel wants them: the first address of each,
// and the first one after it marked as an end. There is none after the last
// address of all.
func elementsOf(spans []span) []member {
	var members []member
	for _, s := range spans {
		members = append(members, member{key: binary.BigEndian.AppendUint32(nil, s.first)})
		if s.last != math.MaxUint32 {
			members = append(members, member{key: binary.BigEndian.AppendUint32(nil, s.last+1), end: true})
		}
	}
	return members
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
