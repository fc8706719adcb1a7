package memnat

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
)

// Counts is as that of nftnat.Kernel.
func (n *NAT) Counts(inside netip.Addr) (c nat.SessionCounts) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.flows {
		if !f.names(inside) {
			continue
		}
		switch f.Orig.Protocol {
		case unix.IPPROTO_TCP:
			c.TCP++
		case unix.IPPROTO_UDP:
			c.UDP++
		case unix.IPPROTO_ICMP:
			c.ICMP++
		default:
			c.Other++
		}
		if f.Orig.Src == inside {
			c.Began++
		}
	}
	return c
}

// AddressCounts is as that of nftnat.Kernel.
func (n *NAT) AddressCounts(yield func([]conntrack.AddressCount)) {
	n.mu.Lock()
	entries := map[netip.Addr]int{}
	for _, f := range n.flows {
		for _, a := range []netip.Addr{f.Orig.Src, f.Reply.Src} {
			if addrrange.InOne(n.inside, a) {
				entries[a]++
			}
		}
	}
	var all []conntrack.AddressCount
	for a, count := range entries {
		all = append(all, conntrack.AddressCount{Inside: a, Entries: count, Begun: n.begun.counted[a]})
	}
	n.mu.Unlock()
	if len(all) > 0 {
		yield(all)
	}
}
