package memnat

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// pins are those of inside ports and remote endpoints, in order.
type pins struct {
	nat *NAT
	of  map[netip.Addr][]nat.Pin
	cut map[netip.Addr]int // those that went with the gate, until Reap tells their number
}

// SetPins is as that of nftnat.Kernel. The twin has room for any number.
func (p *pins) SetPins(ctx context.Context, inside netip.Addr, list []nat.Pin) error {
	n := p.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(p.of, inside)
	c, online := n.cells.At(inside)
	if !online || !n.mappings.Pinned {
		return ctx.Err()
	}
	learned := addrrange.InOne(n.mappings.EndpointIndependent, netip.AddrFrom4(c.outside))
	list = slices.DeleteFunc(slices.Clone(list), func(p nat.Pin) bool {
		return p.Block.Outside != netip.AddrFrom4(c.outside) || learned && !p.Remote.IsValid()
	})
	if len(list) > 0 {
		slices.SortFunc(list, nat.ComparePins)
		p.of[inside] = list
	}
	return ctx.Err()
}

// Pins is as that of nftnat.Kernel.
func (p *pins) Pins(inside netip.Addr) []nat.Pin {
	n := p.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(p.of[inside])
}

// Pinned is as that of nftnat.Kernel.
func (p *pins) Pinned() []netip.Addr {
	n := p.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(p.of, func(_ netip.Addr, list []nat.Pin) bool { return len(list) == 0 })
	return slices.SortedFunc(maps.Keys(p.of), netip.Addr.Compare)
}

// unpinLocked takes the pins of an address away where a new entry ends them.
func (p *pins) unpinLocked(e nat.Entry) {
	n := p.nat
	before, online := n.cells.At(e.Inside)
	if e.Gate == nat.GateClosed || !online || netip.AddrFrom4(before.outside) != e.Outside {
		if pinned := len(p.of[e.Inside]); pinned > 0 {
			p.cut[e.Inside] += pinned
			delete(p.of, e.Inside)
		}
	}
}

// pinnedLocked returns the cell with the ports for a new session: those of a pin, if there is
// one. That of the inside port comes before that of the remote endpoint.
func (p *pins) pinnedLocked(t conntrack.Tuple, c cell) cell {
	for _, x := range p.of[t.Src] {
		if x.Protocol == t.Protocol && (x.Remote == netip.AddrPortFrom(t.Dst, t.DstPort) || !x.Remote.IsValid() && uint16(x.Port) == t.SrcPort) {
			c.first, c.last = x.Block.First, x.Block.Last
		}
	}
	return c
}

// SettledSessionsOf is as that of nftnat.Kernel.
func (p *pins) SettledSessionsOf(ctx context.Context, inside netip.Addr, yield func(nftnat.Session) error) (bool, error) {
	n := p.nat
	return true, n.SessionsOf(ctx, netip.PrefixFrom(inside, 32), yield)
}

// Ports is as that of nftnat.Kernel.
func (p *pins) Ports(inside netip.Addr, protocol uint8) (ports []uint16) {
	n := p.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	for t := range n.flows {
		if t.Src == inside && t.Protocol == protocol {
			ports = append(ports, t.SrcPort)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// ExpireMappings simulates that the learned mappings without a session idle out.
func (n *NAT) ExpireMappings() {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.learned, func(of endpoint, at netip.AddrPort) bool {
		for _, f := range n.flows {
			if f.names(of.Addr()) && f.outside == at && f.Orig.Protocol == of.protocol {
				return false
			}
		}
		return true
	})
}
