// Package prefixtable finds the longest prefix that contains an address.
package prefixtable

import (
	"net/netip"
	"slices"
)

// A Table maps prefixes of IPv4 and IPv6 to values. Its zero value is empty.
//
// A look-up is one map access for each prefix length in use, usually one or two of them: 25 ns
// each (BenchmarkLookup). With dozens of lengths a trie, such as github.com/gaissmai/bart, is
// faster.
//
// A Table may be read concurrently, but not during a Put.
type Table[T any] struct {
	lengths []int // in use, longest first
	values  map[netip.Prefix]T
}

// Put sets the value of a prefix; its bits behind its length do not count. An IPv4-mapped IPv6
// prefix is the IPv4 one. An invalid prefix is ignored.
func (t *Table[T]) Put(p netip.Prefix, v T) {
	if p = canonical(p); !p.IsValid() {
		return
	}
	if t.values == nil {
		t.values = make(map[netip.Prefix]T)
	}
	t.values[p] = v
	if i, found := slices.BinarySearchFunc(t.lengths, p.Bits(), func(a, b int) int { return b - a }); !found {
		t.lengths = slices.Insert(t.lengths, i, p.Bits())
	}
}

// At returns the value of a prefix, and whether it has one.
func (t *Table[T]) At(p netip.Prefix) (T, bool) {
	v, ok := t.values[canonical(p)]
	return v, ok
}

// Lookup returns the value of the longest prefix that contains an address, and whether there
// is one. An IPv4-mapped IPv6 address is the IPv4 one.
func (t *Table[T]) Lookup(a netip.Addr) (T, bool) {
	a = a.Unmap()
	for _, bits := range t.lengths {
		p, err := a.Prefix(bits)
		if err != nil {
			continue // longer than an address of this family
		}
		if v, ok := t.values[p]; ok {
			return v, true
		}
	}
	var none T
	return none, false
}

// Len returns the number of prefixes.
func (t *Table[T]) Len() int { return len(t.values) }

func canonical(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}
