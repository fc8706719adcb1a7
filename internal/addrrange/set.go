// Package addrrange represents IPv4 addresses, and ranges of them, as numbers.
package addrrange

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// InOne reports whether an address is in one of some prefixes.
func InOne(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Number returns an IPv4 address as a number, in the order of addresses. It panics for another
// address but an IPv4-mapped one, see [netip.Addr.As4].
func Number(a netip.Addr) uint32 {
	octets := a.As4()
	return binary.BigEndian.Uint32(octets[:])
}

// Address is the reverse of Number.
func Address(n uint32) netip.Addr {
	var octets [4]byte
	binary.BigEndian.PutUint32(octets[:], n)
	return netip.AddrFrom4(octets)
}

// A Range is a run of consecutive addresses, both ends included.
type Range struct{ First, Last uint32 }

// A Set is a list of ranges in order that neither overlap nor touch.
type Set []Range

// Of returns the addresses of prefixes, all of which must be IPv4.
func Of(prefixes []netip.Prefix) Set {
	all := make(Set, 0, len(prefixes))
	for _, p := range prefixes {
		first := Number(p.Masked().Addr())
		all = append(all, Range{first, first | math.MaxUint32>>p.Bits()})
	}
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	joined := all[:0]
	for _, r := range all {
		if n := len(joined); n > 0 && uint64(r.First) <= uint64(joined[n-1].Last)+1 {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// Contains reports whether an address is in one of the ranges. It takes some nanoseconds
// for hundreds of them (BenchmarkContains).
func (s Set) Contains(addr uint32) bool {
	low, high := 0, len(s)
	for low < high {
		if middle := int(uint(low+high) >> 1); s[middle].Last < addr {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low < len(s) && s[low].First <= addr
}

// Without returns the addresses of the set that another one does not have.
func (s Set) Without(other Set) Set {
	var rest Set
	for _, r := range s {
		first := uint64(r.First)
		for _, o := range other {
			if uint64(o.Last) < first || o.First > r.Last {
				continue
			}
			if first < uint64(o.First) {
				rest = append(rest, Range{uint32(first), o.First - 1})
			}
			first = uint64(o.Last) + 1
		}
		if first <= uint64(r.Last) {
			rest = append(rest, Range{uint32(first), r.Last})
		}
	}
	return rest
}

// AppendPrefixes appends the fewest prefixes that cover exactly the range.
func (r Range) AppendPrefixes(list []netip.Prefix) []netip.Prefix {
	for first := uint64(r.First); first <= uint64(r.Last); {
		size := first & -first // the largest that may begin at first
		if first == 0 {
			size = 1 << 32
		}
		for size > uint64(r.Last)-first+1 {
			size >>= 1
		}
		address := Address(uint32(first))
		list = append(list, netip.PrefixFrom(address, 32-bits.TrailingZeros64(size)))
		first += size
	}
	return list
}
