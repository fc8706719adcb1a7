package nftnat

import (
	"encoding/binary"
	"math"
	"math/bits"
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

// prefixesOf is the reverse of elementsOf: the members, in order of key, as the
// fewest prefixes.
func prefixesOf(members []member) []netip.Prefix {
	var prefixes []netip.Prefix
	for i, m := range members {
		if m.end || len(m.key) != addressLen {
			continue
		}
		last := uint32(math.MaxUint32)
		if i+1 < len(members) {
			last = binary.BigEndian.Uint32(members[i+1].key) - 1
		}
		prefixes = span{binary.BigEndian.Uint32(m.key), last}.prefixes(prefixes)
	}
	return prefixes
}

// prefixes appends the fewest prefixes that are the span together.
func (s span) prefixes(list []netip.Prefix) []netip.Prefix {
	for first := uint64(s.first); first <= uint64(s.last); {
		size := first & -first // the largest that may begin here
		if first == 0 {
			size = 1 << 32
		}
		for size > uint64(s.last)-first+1 {
			size >>= 1
		}
		address := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(first))))
		list = append(list, netip.PrefixFrom(address, 32-bits.TrailingZeros64(size)))
		first += size
	}
	return list
}

// withAll adds to a list those of more that are not in it.
func withAll(list, more []netip.Prefix) []netip.Prefix {
	list = slices.Clone(list)
	for _, p := range more {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
