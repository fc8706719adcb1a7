package conntracktest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
)

// Status bits of an entry (enum ip_conntrack_status).
const (
	SeenReply = 1 << 1
	Assured   = 1 << 2
	Confirmed = 1 << 3
)

// Payload encodes e as the body of a ctnetlink message, the nfgenmsg header included.
func Payload(e conntrack.Entry) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(1, tuple(e.Orig))
	ae.Nested(2, tuple(e.Reply))
	ae.Uint32(3, e.Status)
	ae.Uint32(7, uint32(e.Timeout/time.Second))
	if e.Zone != 0 {
		ae.Uint16(18, e.Zone)
	}
	if e.ID != 0 {
		ae.Uint32(12, e.ID)
	}
	if e.Labels != (conntrack.Labels{}) {
		ae.Bytes(22, e.Labels[:])
	}
	if e.Packets != 0 || e.Bytes != 0 {
		ae.Nested(9, counters(e))
	}
	if e.Orig.Protocol == unix.IPPROTO_TCP {
		ae.Nested(4, tcpInfo(e.TCPState))
	}
	attrs, err := ae.Encode()
	return append([]byte{unix.AF_INET, 0, 0, 0}, attrs...), err
}

func tuple(t conntrack.Tuple) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Nested(1, func(ae *netlink.AttributeEncoder) error {
			src, dst := t.Src.As4(), t.Dst.As4()
			ae.Bytes(1, src[:])
			ae.Bytes(2, dst[:])
			return nil
		})
		ae.Nested(2, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(1, t.Protocol)
			if t.Protocol == unix.IPPROTO_ICMP {
				ae.Uint16(4, t.SrcPort)
				ae.Uint8(5, uint8(t.DstPort>>8))
				ae.Uint8(6, uint8(t.DstPort))
				return nil
			}
			ae.Uint16(2, t.SrcPort)
			ae.Uint16(3, t.DstPort)
			return nil
		})
		return nil
	}
}

func counters(e conntrack.Entry) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Uint64(1, e.Packets)
		ae.Uint64(2, e.Bytes)
		return nil
	}
}

func tcpInfo(state uint8) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Nested(1, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(1, state)
			return nil
		})
		return nil
	}
}

// Outbound returns a UDP entry that inside opened to remote, translated to outside.
func Outbound(inside, outside, remote netip.AddrPort) conntrack.Entry {
	return entry(
		udp(inside, remote),
		udp(remote, outside))
}

// Inbound returns a UDP entry that remote opened to outside, translated to inside.
func Inbound(inside, outside, remote netip.AddrPort) conntrack.Entry {
	return entry(
		udp(remote, outside),
		udp(inside, remote))
}

// Hairpin returns a UDP entry from inside a, translated to outsideA, to inside b by its
// outside address.
func Hairpin(a, outsideA, b, outsideB netip.AddrPort) conntrack.Entry {
	return entry(
		udp(a, outsideB),
		udp(b, outsideA))
}

func entry(orig, reply conntrack.Tuple) conntrack.Entry {
	return conntrack.Entry{
		Orig: orig, Reply: reply, Timeout: time.Hour, Status: SeenReply | Assured | Confirmed,
	}
}

func udp(src, dst netip.AddrPort) conntrack.Tuple {
	return conntrack.Tuple{
		Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port(),
		Protocol: unix.IPPROTO_UDP,
	}
}

// Many returns n outbound entries of inside, each to another remote port.
func Many(inside, outside netip.Addr, n int) []conntrack.Entry {
	remote := netip.MustParseAddr("203.0.113.1")
	entries := make([]conntrack.Entry, n)
	for i := range entries {
		entries[i] = Outbound(
			netip.AddrPortFrom(inside, uint16(1024+i%60000)),
			netip.AddrPortFrom(outside, uint16(1024+i%60000)),
			netip.AddrPortFrom(remote, uint16(1+i/60000)))
		entries[i].Reply.DstPort = entries[i].Orig.SrcPort
	}
	return entries
}

// String formats an entry for messages of failed tests.
func String(e conntrack.Entry) string {
	return fmt.Sprintf("%v:%d > %v:%d / %v:%d > %v:%d zone %d", e.Orig.Src, e.Orig.SrcPort, e.Orig.Dst, e.Orig.DstPort,
		e.Reply.Src, e.Reply.SrcPort, e.Reply.Dst, e.Reply.DstPort, e.Zone)
}
