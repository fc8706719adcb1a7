package memnat

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
)

// forwards are the mappings of the addresses that have any.
type forwards struct{ of map[netip.Addr]nat.Forwards }

// ExpectStatic is as that of nftnat.Kernel: the twin knows what it has.
func (*forwards) ExpectStatic([]nat.Endpoint) {}

// set sets the mappings of an address, which takes their endpoints from others.
func (x *forwards) set(inside netip.Addr, f nat.Forwards) {
	for other, has := range x.of {
		var left []nat.Forward
		for one := range has.All() {
			if !f.Reaches(one.Endpoint()) {
				left = append(left, one)
			}
		}
		if other != inside && len(left) < has.Len() {
			x.keep(other, nat.NewForwards(left))
		}
	}
	x.keep(inside, f)
}

func (x *forwards) keep(inside netip.Addr, f nat.Forwards) {
	if f == (nat.Forwards{}) {
		delete(x.of, inside)
		return
	}
	x.of[inside] = f
}

// source returns the outside endpoint of a flow whose inside port has a mapping.
func (x *forwards) source(t conntrack.Tuple) (netip.AddrPort, bool) {
	for f := range x.of[t.Src].All() {
		if f.Protocol == t.Protocol && uint16(f.InsidePort) == t.SrcPort {
			return f.Outside, true
		}
	}
	return netip.AddrPort{}, false
}
