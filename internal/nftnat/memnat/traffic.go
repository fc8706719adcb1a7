package memnat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"golang.org/x/sys/unix"
)

// ErrDropped: a simulated packet did not pass.
var ErrDropped = errors.New("memnat: packet dropped")

// flow is a conntrack entry of simulated traffic.
type flow struct {
	conntrack.Entry
	outside netip.AddrPort // the subscriber's, after translation

	established time.Duration // idle timeout of an established TCP connection
}

// names reports whether the flow has an address as the source of either tuple.
func (f flow) names(a netip.Addr) bool { return f.Orig.Src == a || f.Reply.Src == a }

// Numbers of TCP states, the kernel's enum tcp_conntrack.
const tcpSynSent, tcpEstablished = 1, 3

// endpoint is an inside endpoint of a protocol.
type endpoint struct {
	protocol uint8
	netip.AddrPort
}

// maps reports whether a learned mapping is made for flows of a protocol that leave by an
// outside address.
func (n *NAT) mapsLocked(protocol uint8, outside netip.Addr) bool {
	return protocol != unix.IPPROTO_ICMP && addrrange.InOne(n.mappings.EndpointIndependent, outside)
}

// Maps reports whether flows that leave by an outside address get learned mappings.
func (n *NAT) Maps(outside netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mapsLocked(unix.IPPROTO_UDP, outside)
}

// Reach simulates a packet from a remote host to an outside endpoint that has no session with
// it: by a static mapping, or by a learned one, where filtering is endpoint-independent. It returns ErrDropped
// without one, and when the subscriber's gate does not let a new session in.
func (n *NAT) Reach(protocol uint8, remote, outside netip.AddrPort) (nftnat.Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for inside, has := range n.forwards.of {
		for f := range has.All() {
			if f.Endpoint() == (nat.Endpoint{Protocol: protocol, AddrPort: outside}) {
				return n.enterLocked(protocol, remote, outside, netip.AddrPortFrom(inside, uint16(f.InsidePort)))
			}
		}
	}
	if !addrrange.InOne(n.mappings.Open, outside.Addr()) {
		return nftnat.Session{}, n.dropLocked(nat.DropNoMapping, nat.DropIn, outside.Addr())
	}
	for inside, at := range n.learned {
		if inside.protocol != protocol || at != outside {
			continue
		}
		return n.enterLocked(protocol, remote, outside, inside.AddrPort)
	}
	return nftnat.Session{}, n.dropLocked(nat.DropNoMapping, nat.DropIn, outside.Addr())
}

// enterLocked begins a session of a remote host through a mapping, if the gate lets it in.
func (n *NAT) enterLocked(protocol uint8, remote, outside, inside netip.AddrPort) (nftnat.Session, error) {
	switch c, _ := n.cells.At(inside.Addr()); c.gate {
	case nat.GateClosed:
		return nftnat.Session{}, n.dropLocked(nat.DropNoGate, nat.DropIn, inside.Addr())
	case nat.GateDraining:
		return nftnat.Session{}, n.dropLocked(nat.DropDraining, nat.DropIn, inside.Addr())
	}
	t := conntrack.Tuple{Src: remote.Addr(), SrcPort: remote.Port(), Dst: outside.Addr(), DstPort: outside.Port(), Protocol: protocol}
	f := n.beginLocked(t, outside)
	f.Status |= conntrack.StatusDestinationTranslated
	f.Reply = conntrack.Tuple{Src: inside.Addr(), SrcPort: inside.Port(), Dst: remote.Addr(), DstPort: remote.Port(), Protocol: protocol}
	f.Packets++
	n.flows[t] = f
	return nftnat.SessionsIn(f.Entry, []netip.Prefix{netip.PrefixFrom(inside.Addr(), 32)})[0], nil
}

// Send simulates a packet from a subscriber. It begins a session if there is none and the gate
// is open. For ICMP the subscriber's port is the query identifier and the remote port 0. It
// returns ErrDropped when the gate or a limit refuses the packet, or when the block is used up.
func (n *NAT) Send(protocol uint8, inside, remote netip.AddrPort) (nftnat.Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, _ := n.cells.At(inside.Addr())
	t := conntrack.Tuple{
		Src: inside.Addr(), SrcPort: inside.Port(), Dst: remote.Addr(), DstPort: remote.Port(), Protocol: protocol,
	}
	f, known := n.flows[t]
	switch {
	case protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP && protocol != unix.IPPROTO_ICMP:
		return nftnat.Session{}, n.dropLocked(nat.DropProtocol, nat.DropOut, inside.Addr())
	case c.gate == nat.GateClosed:
		return nftnat.Session{}, n.dropLocked(nat.DropNoGate, nat.DropOut, inside.Addr())
	case c.gate == nat.GateDraining && !known:
		return nftnat.Session{}, n.dropLocked(nat.DropDraining, nat.DropOut, inside.Addr())
	case !known:
		if l, over := n.overLimitLocked(t, time.Now()); over {
			n.limits.refuse(inside.Addr(), l)
			return nftnat.Session{}, n.dropLocked(nat.DropOverLimit, nat.DropOut, inside.Addr())
		}
		if n.keepsAddressLocked(t) {
			f = n.beginLocked(t, inside)
			n.begun.counted[inside.Addr()]++
			break
		}
		outside, static := n.forwards.source(t)
		if !static {
			port, ok := n.portLocked(t, c)
			if !ok {
				return nftnat.Session{}, n.dropLocked(nat.DropBlockFull, nat.DropOut, inside.Addr())
			}
			outside = netip.AddrPortFrom(netip.AddrFrom4(c.outside), port)
		}
		f = n.beginLocked(t, outside)
		n.flows[t] = f
		n.begun.counted[inside.Addr()]++
		if n.begun.least > 0 {
			n.begun.grew(inside.Addr(), n.countLocked(inside.Addr()))
		}
		if !static && n.mapsLocked(protocol, f.outside.Addr()) && len(n.learned) < n.mappings.Most {
			n.learned[endpoint{protocol, inside}] = f.outside
		}
	}
	f.Packets++
	n.flows[t] = f
	return nftnat.SessionsIn(f.Entry, []netip.Prefix{netip.PrefixFrom(inside.Addr(), 32)})[0], nil
}

// keepsAddressLocked reports whether a session is one without NAT.
func (n *NAT) keepsAddressLocked(t conntrack.Tuple) bool {
	return slices.ContainsFunc(n.noNAT, func(list nat.NoNAT) bool {
		return list.Covers(t.Protocol, t.Src, netip.AddrPortFrom(t.Dst, t.DstPort))
	})
}

// portLocked chooses the outside port: that of another session of the same inside port (RFC
// 4787 REQ-1), else the first free one of the block.
func (n *NAT) portLocked(t conntrack.Tuple, c cell) (uint16, bool) {
	if at, ok := n.learned[endpoint{t.Protocol, netip.AddrPortFrom(t.Src, t.SrcPort)}]; ok {
		return at.Port(), true
	}
	c = n.pinnedLocked(t, c)
	used := make(map[uint16]bool)
	for of, at := range n.learned {
		if of.protocol == t.Protocol && at.Addr() == netip.AddrFrom4(c.outside) {
			used[at.Port()] = true
		}
	}
	for _, f := range n.flows {
		if f.Orig.Protocol != t.Protocol || f.outside.Addr() != netip.AddrFrom4(c.outside) {
			continue
		}
		inRange := nat.Port(f.outside.Port()) >= c.first && nat.Port(f.outside.Port()) <= c.last
		if f.Orig.Src == t.Src && f.Orig.SrcPort == t.SrcPort && inRange {
			return f.outside.Port(), true
		}
		used[f.outside.Port()] = true
	}
	for port := int(c.first); port <= int(c.last); port++ {
		if !used[uint16(port)] {
			return uint16(port), true
		}
	}
	return 0, false
}

func (n *NAT) beginLocked(t conntrack.Tuple, outside netip.AddrPort) flow {
	n.lastID++
	timeouts := nat.TimeoutsOf(n.timeouts, n.groups, t.Src, t.Protocol, t.DstPort)
	f := flow{conntrack.Entry{ID: n.lastID, Orig: t, Status: conntrack.StatusConfirmed, Timeout: timeouts.UDP}, outside, timeouts.TCPEstablished}
	f.Reply = conntrack.Tuple{
		Src: t.Dst, SrcPort: t.DstPort, Dst: outside.Addr(), DstPort: outside.Port(), Protocol: t.Protocol,
	}
	switch t.Protocol {
	case unix.IPPROTO_TCP:
		f.TCPState, f.Timeout = tcpSynSent, timeouts.PartialOpen()
	case unix.IPPROTO_ICMP:
		f.Timeout = timeouts.ICMP
		f.Reply.SrcPort, f.Reply.DstPort = outside.Port(), 0
	}
	return f
}

// dropLocked counts a packet that does not pass.
func (n *NAT) dropLocked(reason nat.DropReason, direction nat.DropDirection, address netip.Addr) error {
	d := nat.Drop{Reason: reason, Direction: direction}
	n.dropped[d]++
	return fmt.Errorf("%w: %s, %s: %v", ErrDropped, d.Reason, d.Direction, address)
}

// Drops is as that of nftnat.Kernel. The simulated packets have no length.
func (n *NAT) Drops(ctx context.Context) ([]nat.DropCount, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var counts []nat.DropCount
	for _, d := range nat.Drops() {
		counts = append(counts, nat.DropCount{Drop: d, Packets: n.dropped[d]})
	}
	return counts, ctx.Err()
}

// Receive simulates a packet from a remote host in a session. It returns ErrDropped when the
// session has ended or the gate is closed.
func (n *NAT) Receive(s nftnat.Session) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.flows[s.Entry.Orig]
	if !ok || f.ID != s.Entry.ID {
		return n.dropLocked(nat.DropNoMapping, nat.DropIn, s.Outside.Addr())
	}
	if c, _ := n.cells.At(s.Inside.Addr()); c.gate == nat.GateClosed {
		return n.dropLocked(nat.DropNoGate, nat.DropIn, s.Inside.Addr())
	}
	f.Status |= conntrack.StatusSeenReply
	if f.Orig.Protocol == unix.IPPROTO_TCP {
		f.TCPState, f.Timeout = tcpEstablished, f.established
	}
	f.Packets++
	n.flows[s.Entry.Orig] = f
	return nil
}

// Expire simulates that a session idles out.
func (n *NAT) Expire(s nftnat.Session) { _ = n.KillSession(context.Background(), s) }

// KillSession is as that of nftnat.Kernel.
func (n *NAT) KillSession(ctx context.Context, s nftnat.Session) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f, ok := n.flows[s.Entry.Orig]; ok && f.ID == s.Entry.ID {
		n.endLocked(f)
	}
	return ctx.Err()
}

// endLocked ends a session, and notes the subscribers whose last session it was.
func (n *NAT) endLocked(f flow) {
	delete(n.flows, f.Orig)
	for _, a := range []netip.Addr{f.Orig.Src, f.Reply.Src} {
		if addrrange.InOne(n.inside, a) && n.countLocked(a) == 0 {
			n.ended[a] = true
			delete(n.begun.counted, a)
		}
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Reap is as that of nftnat.Kernel.
func (n *NAT) Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	proofs := make([]nat.Reaped, 0, len(inside))
	for _, a := range inside {
		deleted := 0
		for _, f := range n.flows {
			if f.names(a) {
				n.endLocked(f)
				deleted++
			}
		}
		n.limits.forget(a)
		elements := 0
		for of := range n.learned {
			if of.Addr() == a {
				delete(n.learned, of)
				elements += nftnat.MappingElements
			}
		}
		elements += n.pins.cut[a]
		delete(n.pins.cut, a)
		proofs = append(proofs, nat.Reaped{Inside: a, Deleted: deleted, Elements: elements, Proof: nat.ProofIndex, At: time.Now()})
	}
	return proofs, nil
}

// Idlers is as that of nftnat.Kernel: the twin ends its sessions at once.
func (n *NAT) Idlers(ctx context.Context, inside []netip.Addr) (none []netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range inside {
		if n.countLocked(a) == 0 {
			none = append(none, a)
		}
	}
	return none, ctx.Err()
}

// Sessions is as that of nftnat.Kernel; it yields in the order in which the sessions began.
func (n *NAT) Sessions(ctx context.Context, yield func(nftnat.Session) error) error {
	n.mu.Lock()
	inside := n.inside
	entries := make([]conntrack.Entry, 0, len(n.flows))
	for _, f := range n.flows {
		entries = append(entries, f.Entry)
	}
	n.mu.Unlock()
	slices.SortFunc(entries, func(a, b conntrack.Entry) int { return cmp.Compare(a.ID, b.ID) })
	for _, e := range entries {
		for _, s := range nftnat.SessionsIn(e, inside) {
			if err := yield(s); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// SessionsOf is as that of nftnat.Kernel.
func (n *NAT) SessionsOf(ctx context.Context, inside netip.Prefix, yield func(nftnat.Session) error) error {
	return n.Sessions(ctx, func(s nftnat.Session) error {
		if !inside.Contains(s.Inside.Addr()) {
			return nil
		}
		return yield(s)
	})
}

// SessionCount is as that of nftnat.Kernel.
func (n *NAT) SessionCount(inside netip.Addr) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.countLocked(inside)
}

func (n *NAT) countLocked(inside netip.Addr) int {
	count := 0
	for _, f := range n.flows {
		if f.names(inside) {
			count++
		}
	}
	return count
}

// PortUse is as that of nftnat.Kernel.
func (n *NAT) PortUse(inside netip.Addr) nat.PortUse {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.portsLocked()[inside]
}

// PortUses is as that of nftnat.Kernel.
func (n *NAT) PortUses(yield func([]conntrack.PortUser)) {
	n.mu.Lock()
	var all []conntrack.PortUser
	for inside, u := range n.portsLocked() {
		all = append(all, conntrack.PortUser{Inside: inside, PortUse: u})
	}
	n.mu.Unlock()
	if len(all) > 0 {
		yield(all)
	}
}

// portsLocked counts the different inside ports of the flows.
func (n *NAT) portsLocked() map[netip.Addr]nat.PortUse {
	type port struct {
		protocol uint8
		inside   netip.AddrPort
	}
	seen := map[port]bool{}
	users := map[netip.Addr]nat.PortUse{}
	for t := range n.flows {
		p := port{t.Protocol, netip.AddrPortFrom(t.Src, t.SrcPort)}
		if seen[p] {
			continue
		}
		seen[p] = true
		u := users[t.Src]
		switch t.Protocol {
		case unix.IPPROTO_TCP:
			u.TCP++
		case unix.IPPROTO_UDP:
			u.UDP++
		case unix.IPPROTO_ICMP:
			u.ICMP++
		}
		users[t.Src] = u
	}
	return users
}

// SessionTotal is as that of nftnat.Kernel.
func (n *NAT) SessionTotal() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.flows)
}

// Fill is as that of nftnat.Kernel: the twin has no limits.
func (n *NAT) Fill() nftnat.Fill { return nftnat.Fill{Entries: n.SessionTotal()} }

// IndexStats is as that of nftnat.Kernel: the twin needs no index.
func (n *NAT) IndexStats() nftnat.IndexStats { return nftnat.IndexStats{} }
