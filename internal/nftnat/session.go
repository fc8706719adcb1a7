package nftnat

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// Session is one conntrack entry as seen by one subscriber. A hairpin flow,
// between two subscribers, is two Sessions. For ICMP echo the inside and
// outside ports hold the query identifier and the remote port is 0 (RFC 5508
// section 3.1).
type Session struct {
	nat.Session
	Entry conntrack.Entry // deleted by KillSession
}

// SessionsIn returns the sessions of subscribers in a conntrack entry: none, one, or two.
func SessionsIn(e conntrack.Entry, inside []netip.Prefix) []Session {
	var sessions []Session
	if contains(inside, e.Orig.Src) {
		s := newSession(e, nat.Outbound)
		s.Inside, s.Outside, s.Remote = ends(e.Orig, e.Reply)
		sessions = append(sessions, s)
	}
	if contains(inside, e.Reply.Src) {
		s := newSession(e, nat.Inbound)
		s.Inside, s.Outside, s.Remote = ends(e.Reply, e.Orig)
		sessions = append(sessions, s)
	}
	return sessions
}

func newSession(e conntrack.Entry, d nat.Direction) Session {
	return Session{nat.Session{
		Protocol: e.Orig.Protocol, Direction: d,
		State: stateOf(e), ExpiresIn: e.Timeout, Packets: e.Packets, Bytes: e.Bytes,
	}, e}
}

// ends reads the tuple whose source is the subscriber, and the opposite one. The query
// identifier of ICMP is the source port of both.
func ends(from, to conntrack.Tuple) (inside, outside, remote netip.AddrPort) {
	outsidePort, remotePort := to.DstPort, from.DstPort
	if from.Protocol == unix.IPPROTO_ICMP {
		outsidePort, remotePort = to.SrcPort, 0
	}
	return netip.AddrPortFrom(from.Src, from.SrcPort),
		netip.AddrPortFrom(to.Dst, outsidePort),
		netip.AddrPortFrom(from.Dst, remotePort)
}

// tcpStates are the kernel's enum tcp_conntrack.
var tcpStates = [...]string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT",
	"LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

func stateOf(e conntrack.Entry) string {
	switch {
	case e.Orig.Protocol == unix.IPPROTO_TCP && int(e.TCPState) < len(tcpStates):
		return tcpStates[e.TCPState]
	case e.Status&conntrack.StatusAssured != 0:
		return "ASSURED"
	case e.Status&conntrack.StatusSeenReply != 0:
		return "REPLIED"
	}
	return "UNREPLIED"
}
