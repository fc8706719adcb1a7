package conntrack

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// span is a range of IPv4 addresses, both ends included.
type span struct{ first, last uint32 }

// spans are ranges in order, none overlapping another.
type spans []span

// newSpans orders and joins prefixes.
func newSpans(prefixes []netip.Prefix) (spans, error) {
	var all spans
	for _, p := range prefixes {
		first, ok := fromAddr(p.Masked().Addr())
		if !ok || !p.IsValid() {
			return nil, fmt.Errorf("inside prefix %v is not IPv4", p)
		}
		all = append(all, span{first, first | uint32(uint64(1)<<(32-p.Bits())-1)})
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return all.join(), nil
}

// join unites ranges that overlap; s is in order.
func (s spans) join() spans {
	var out spans
	for _, r := range s {
		if n := len(out); n > 0 && r.first <= out[n-1].last {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// contains searches in O(log n).
func (s spans) contains(addr uint32) bool {
	low, high := 0, len(s)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if s[mid].last < addr {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low < len(s) && s[low].first <= addr
}

// addrSet is a set of addresses, such as the inside prefixes.
type addrSet interface{ contains(addr uint32) bool }

// askedAddrs is the set of addresses a caller asks about.
type askedAddrs map[uint32]struct{}

func (a askedAddrs) contains(addr uint32) bool {
	_, ok := a[addr]
	return ok
}

func newAsked(addrs []netip.Addr) (askedAddrs, error) {
	set := make(askedAddrs, len(addrs))
	for _, a := range addrs {
		v, ok := fromAddr(a)
		if !ok {
			return nil, fmt.Errorf("address %v is not IPv4", a)
		}
		set[v] = struct{}{}
	}
	return set, nil
}

// maxOwners is the number of addresses in an entry: source and destination, twice.
const maxOwners = 4

// insideAddrs are the distinct addresses of one entry that lie in a set: usually one, two
// for a hairpin entry.
type insideAddrs struct {
	addrs [maxOwners]uint32
	n     uint8
}

func (f *flow) owners(in addrSet) insideAddrs {
	var o insideAddrs
	o.add(f.orig.src, in)
	o.add(f.reply.src, in)
	o.add(f.orig.dst, in)
	o.add(f.reply.dst, in)
	return o
}

func (o *insideAddrs) add(addr uint32, in addrSet) {
	if slices.Contains(o.list(), addr) || !in.contains(addr) {
		return
	}
	o.addrs[o.n] = addr
	o.n++
}

func (o *insideAddrs) list() []uint32 { return o.addrs[:o.n] }

// anyIn reports whether one of the addresses lies in a set.
func (o *insideAddrs) anyIn(set addrSet) bool { return slices.ContainsFunc(o.list(), set.contains) }
