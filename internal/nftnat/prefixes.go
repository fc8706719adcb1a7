package nftnat

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// elementsOf writes ranges as the kernel wants them: the first address of each,
// and the first one after it marked as an end. There is none after the last
// address of all.
func elementsOf(ranges addrrange.Set) []member {
	var members []member
	for _, r := range ranges {
		members = append(members, member{key: binary.BigEndian.AppendUint32(nil, r.First)})
		if r.Last != math.MaxUint32 {
			members = append(members, member{key: binary.BigEndian.AppendUint32(nil, r.Last+1), end: true})
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
		prefixes = addrrange.Range{First: binary.BigEndian.Uint32(m.key), Last: last}.AppendPrefixes(prefixes)
	}
	return prefixes
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
