package memnat

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
)

// beginnings count the sessions that busy subscribers begin, until somebody looks at each.
type beginnings struct {
	least int
	until map[netip.Addr]int // of busy subscribers, the sessions that may begin before the next look
	due   map[netip.Addr]bool
	wake  chan struct{}

	counted map[netip.Addr]uint32 // sessions that each subscriber began since it last had none
}

func newBeginnings() beginnings {
	return beginnings{until: map[netip.Addr]int{}, due: map[netip.Addr]bool{}, wake: make(chan struct{}, 1), counted: map[netip.Addr]uint32{}}
}

// grew takes the new count of a subscriber's sessions.
func (b *beginnings) grew(inside netip.Addr, count int) {
	if b.least == 0 || count < b.least {
		return
	}
	if left := b.until[inside]; left > 1 {
		b.until[inside] = left - 1
		return
	}
	b.until[inside], b.due[inside] = b.least, true
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// CountBegun is as that of nftnat.Kernel.
func (n *NAT) CountBegun(least int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.begun.least == least {
		return
	}
	n.begun.least = least
	clear(n.begun.until)
	for _, f := range n.flows {
		n.begun.grew(f.Orig.Src, n.countLocked(f.Orig.Src))
	}
}

// Begun is as that of nftnat.Kernel.
func (n *NAT) Begun() <-chan struct{} { return n.begun.wake }

// ListBegun is as that of nftnat.Kernel.
func (n *NAT) ListBegun() (list []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := range n.begun.due {
		list = append(list, a)
	}
	clear(n.begun.due)
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// LookAgain is as that of nftnat.Kernel.
func (n *NAT) LookAgain(inside netip.Addr, after int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, busy := n.begun.until[inside]; busy && after > 0 {
		n.begun.until[inside] = after
	}
}

// Vacant is as that of nftnat.Kernel.
func (n *NAT) Vacant(ctx context.Context, inside netip.Addr, b nat.Block) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pins.of[inside] = slices.DeleteFunc(n.pins.of[inside], func(p nat.Pin) bool { return p.Block.Overlaps(b) })
	for _, f := range n.flows {
		if f.names(inside) && b.Contains(f.outside.Addr(), nat.Port(f.outside.Port())) {
			return false, ctx.Err()
		}
	}
	for of, at := range n.learned {
		if of.Addr() == inside && b.Contains(at.Addr(), nat.Port(at.Port())) {
			return false, ctx.Err()
		}
	}
	return true, ctx.Err()
}
