package conntrack

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// rangesOf returns the addresses of prefixes.
func rangesOf(prefixes []netip.Prefix) (addrrange.Set, error) {
	for _, p := range prefixes {
		if !p.IsValid() || !p.Addr().Is4() {
			return nil, fmt.Errorf("inside prefix %v is not IPv4", p)
		}
	}
	return addrrange.Of(prefixes), nil
}

// addrSet is a set of addresses, such as the inside prefixes.
type addrSet interface{ Contains(addr uint32) bool }

// askedAddrs is the set of addresses that a caller asks about.
type askedAddrs map[uint32]struct{}

// Contains reports whether an address is asked about.
func (a askedAddrs) Contains(addr uint32) bool {
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
	if slices.Contains(o.list(), addr) || !in.Contains(addr) {
		return
	}
	o.addrs[o.n] = addr
	o.n++
}

func (o *insideAddrs) list() []uint32 { return o.addrs[:o.n] }

// anyIn reports whether one of the addresses lies in a set.
func (o *insideAddrs) anyIn(set addrSet) bool { return slices.ContainsFunc(o.list(), set.Contains) }
