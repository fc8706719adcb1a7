package netlab

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Numbers of IP protocols.
const (
	ICMP uint8 = 1
	TCP  uint8 = 6
	UDP  uint8 = 17
)

// A Packet is one captured IPv4 packet.
type Packet struct {
	At       time.Time
	Outgoing bool // sent by the namespace, not received
	Protocol uint8
	// DF forbids routers to fragment the packet; Fragment marks a fragment (RFC 791
	// section 3.1).
	DF, Fragment bool
	// Source and Destination have the ports of TCP and UDP. An ICMP echo has
	// its id in place of both, as conntrack does; others have 0.
	Source, Destination netip.AddrPort
	Flags               TCPFlags
	// Seq and Ack are of TCP, when it is sent; a Seq of 0 is sent as 1.
	Seq, Ack uint32
	// Type and Code are of ICMP (RFC 792); MTU is that of the next hop, in "fragmentation
	// needed" (RFC 1191 section 4).
	Type, Code uint8
	MTU        uint16
	// TTL is the number of hops left; a TTL of 0 is sent as 64.
	TTL uint8
	// Options are of the IP header, when it is sent: whole 32-bit words.
	Options []byte
	// BadChecksum sends ICMP with a checksum that is wrong.
	BadChecksum bool
	// Quoted is the packet that an ICMP error quotes (RFC 792), if it is one.
	Quoted *Packet
	// Payload is the content after the transport header, as far as it was captured.
	Payload []byte
}

// TCPFlags are the low eight control bits of a TCP header (RFC 9293 3.1).
type TCPFlags uint8

// The control bits that tests use.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Mentions reports whether the address is anywhere in the packet's headers, or
// in those of the packet that it quotes. Outside, no packet may mention an
// inside address.
func (p Packet) Mentions(addr netip.Addr) bool {
	if p.Source.Addr() == addr || p.Destination.Addr() == addr {
		return true
	}
	return p.Quoted != nil && p.Quoted.Mentions(addr)
}

// ParsePacket parses an IPv4 packet, which may be truncated after its headers.
// It returns false for any other input.
func ParsePacket(b []byte) (Packet, bool) { return parsePacket(b, true) }

func parsePacket(b []byte, quotes bool) (Packet, bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return Packet{}, false
	}
	header := int(b[0]&0xf) * 4
	if header < 20 || len(b) < header {
		return Packet{}, false
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	fragmentation := binary.BigEndian.Uint16(b[6:])
	const df, moreFragments, offset = 0x4000, 0x2000, 0x1fff
	p := Packet{
		Protocol:    b[9],
		TTL:         b[8],
		DF:          fragmentation&df != 0,
		Fragment:    fragmentation&(moreFragments|offset) != 0,
		Source:      netip.AddrPortFrom(src, 0),
		Destination: netip.AddrPortFrom(dst, 0),
	}
	if fragmentation&offset != 0 {
		return p, true
	}
	p.parseTransport(b[header:], quotes)
	return p, true
}

func (p *Packet) parseTransport(b []byte, quotes bool) {
	if len(b) < 8 {
		return
	}
	switch p.Protocol {
	case UDP:
		p.setPorts(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
		p.Payload = b[8:]
	case TCP:
		p.setPorts(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
		p.parseTCP(b)
	case ICMP:
		p.parseICMP(b, quotes)
	}
}

// parseTCP parses the header after the ports, which an ICMP error need not
// quote.
func (p *Packet) parseTCP(b []byte) {
	if len(b) < 20 {
		return
	}
	p.Flags = TCPFlags(b[13])
	if offset := int(b[12]>>4) * 4; offset >= 20 && offset <= len(b) {
		p.Payload = b[offset:]
	}
}

func (p *Packet) parseICMP(b []byte, quotes bool) {
	const echoReply, unreachable, quench, redirect, echo, exceeded, parameter = 0, 3, 4, 5, 8, 11, 12
	const fragmentationNeeded = 4
	p.Type, p.Code = b[0], b[1]
	if p.Type == unreachable && p.Code == fragmentationNeeded {
		p.MTU = binary.BigEndian.Uint16(b[6:])
	}
	switch p.Type {
	case echo, echoReply:
		id := binary.BigEndian.Uint16(b[4:])
		p.setPorts(id, id)
		p.Payload = b[8:]
	case unreachable, quench, redirect, exceeded, parameter:
		if !quotes { // an error never quotes an error (RFC 1122 3.2.2)
			return
		}
		if quoted, ok := parsePacket(b[8:], false); ok {
			p.Quoted = &quoted
		}
	}
}

func (p *Packet) setPorts(src, dst uint16) {
	p.Source = netip.AddrPortFrom(p.Source.Addr(), src)
	p.Destination = netip.AddrPortFrom(p.Destination.Addr(), dst)
}
