package nftnat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// ErrDropped: a simulated packet did not pass.
var ErrDropped = errors.New("nftnat: packet dropped")

// Send simulates a packet from a subscriber. It begins a session if there is
// none and the gate is open. For ICMP the subscriber's port is the query
// identifier and the remote port 0. It returns ErrDropped when the gate refuses
// the packet, or when the block is used up.
func (m *Memory) Send(protocol uint8, inside, remote netip.AddrPort) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.cells.at(inside.Addr().As4())
	t := conntrack.Tuple{
		Src: inside.Addr(), SrcPort: inside.Port(), Dst: remote.Addr(), DstPort: remote.Port(), Protocol: protocol,
	}
	e, known := m.flows[t]
	switch {
	case c.gate == nat.GateClosed, c.gate == nat.GateDraining && !known:
		return Session{}, fmt.Errorf("%w: gate of %v", ErrDropped, inside.Addr())
	case !known:
		port, ok := m.portLocked(t, c.block)
		if !ok {
			return Session{}, fmt.Errorf("%w: block of %v is used up", ErrDropped, inside.Addr())
		}
		e = m.beginLocked(t, netip.AddrPortFrom(c.outside.addr(), port))
	}
	e.Packets++
	m.flows[t] = e
	return sessionsOf(e, []netip.Prefix{netip.PrefixFrom(inside.Addr(), 32)})[0], nil
}

// Receive simulates a packet from a remote host in a session. It returns
// ErrDropped when the session has ended or the gate is closed.
func (m *Memory) Receive(s Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.flows[s.entry.Orig]
	if !ok || e.ID != s.entry.ID || m.cells.at(s.Inside.Addr().As4()).gate == nat.GateClosed {
		return ErrDropped
	}
	e.Status |= statusSeenReply
	if e.Orig.Protocol == unix.IPPROTO_TCP {
		e.TCPState, e.Timeout = tcpEstablished, m.timeouts.TCPEstablished
	}
	e.Packets++
	m.flows[s.entry.Orig] = e
	return nil
}

// Expire simulates that a session idles out.
func (m *Memory) Expire(s Session) { _ = m.KillSession(context.Background(), s) }

// portLocked chooses the outside port: that of another session of the same
// inside port (RFC 4787 REQ-1), else the first free one of the block.
func (m *Memory) portLocked(t conntrack.Tuple, b block) (uint16, bool) {
	used := make(map[uint16]bool)
	for _, e := range m.flows {
		if e.Orig.Protocol != t.Protocol || e.Reply.Dst != b.outside.addr() {
			continue
		}
		if e.Orig.Src == t.Src && e.Orig.SrcPort == t.SrcPort {
			return outsidePort(e), true
		}
		used[outsidePort(e)] = true
	}
	for port := int(b.first); port <= int(b.last); port++ {
		if !used[uint16(port)] {
			return uint16(port), true
		}
	}
	return 0, false
}

func outsidePort(e conntrack.Entry) uint16 {
	_, outside, _ := ends(e.Orig, e.Reply)
	return outside.Port()
}

const tcpSynSent, tcpEstablished = 1, 3 // of tcpStates

func (m *Memory) beginLocked(t conntrack.Tuple, outside netip.AddrPort) conntrack.Entry {
	m.lastID++
	e := conntrack.Entry{ID: m.lastID, Orig: t, Status: statusConfirmed, Timeout: m.timeouts.UDP}
	e.Reply = conntrack.Tuple{
		Src: t.Dst, SrcPort: t.DstPort, Dst: outside.Addr(), DstPort: outside.Port(), Protocol: t.Protocol,
	}
	switch t.Protocol {
	case unix.IPPROTO_TCP:
		e.TCPState, e.Timeout = tcpSynSent, m.timeouts.TCPTransitory
	case unix.IPPROTO_ICMP:
		e.Timeout = m.timeouts.ICMP
		e.Reply.SrcPort, e.Reply.DstPort = outside.Port(), 0
	}
	return e
}

// names reports whether an entry has the address as the source of either tuple.
func names(e conntrack.Entry, a netip.Addr) bool { return e.Orig.Src == a || e.Reply.Src == a }

// endLocked ends a session, and notes the subscribers whose last session it was.
func (m *Memory) endLocked(t conntrack.Tuple) {
	e := m.flows[t]
	delete(m.flows, t)
	for _, a := range []netip.Addr{e.Orig.Src, e.Reply.Src} {
		if contains(m.inside, a) && m.countLocked(a) == 0 {
			m.ended[a] = true
		}
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
