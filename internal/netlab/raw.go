package netlab

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// GRE is the number of generic routing encapsulation (RFC 2784).
const GRE uint8 = 47

// Send sends an arbitrary packet: of any source and protocol, outside of any
// flow. Ports and flags come from p. An ICMP packet is an echo request with the
// source port as id, or, with Quoted, the error "port unreachable". The
// namespace's route to the destination determines the interface. It needs
// CAP_NET_RAW.
func (n *Namespace) Send(p Packet) error {
	to := p.Destination.Addr()
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, p.bytes(), 0, &unix.SockaddrInet4{Addr: to.As4()})
	})
	if err != nil {
		return fmt.Errorf("send a packet of protocol %d from %s to %s: %w", p.Protocol, p.Source, p.Destination, err)
	}
	return nil
}

// bytes returns the packet with its IPv4 header (RFC 791 section 3.1), without
// the fields that the kernel fills in: length, identification and checksum.
func (p Packet) bytes() []byte {
	const noOptions, hops = 0x45, 64
	src, dst := p.Source.Addr().As4(), p.Destination.Addr().As4()
	b := []byte{noOptions, 0, 0, 0, 0, 0, 0, 0, hops, p.Protocol, 0, 0}
	b = append(append(b, src[:]...), dst[:]...)
	return append(b, p.transport()...)
}

// whole returns the packet with length and checksum filled in, for a quotation.
func (p Packet) whole() []byte {
	b := p.bytes()
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[10:], onesComplement(b[:20]))
	return b
}

func (p Packet) transport() []byte {
	switch p.Protocol {
	case TCP:
		const words = 5 << 4 // the header's length
		b := p.ports()
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, words, byte(p.Flags), 0xff, 0xff, 0, 0, 0, 0)
		b = append(b, p.Payload...)
		binary.BigEndian.PutUint16(b[16:], p.checksum(b))
		return b
	case UDP:
		b := binary.BigEndian.AppendUint16(p.ports(), uint16(8+len(p.Payload)))
		return append(append(b, 0, 0), p.Payload...) // no checksum (RFC 768)
	case ICMP:
		if p.Quoted != nil {
			const unreachable, port = 3, 3 // RFC 792
			b := append([]byte{unreachable, port, 0, 0, 0, 0, 0, 0}, p.Quoted.whole()...)
			binary.BigEndian.PutUint16(b[2:], onesComplement(b))
			return b
		}
		b := binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0}, p.Source.Port())
		b = append(append(b, 0, 1), p.Payload...)
		binary.BigEndian.PutUint16(b[2:], onesComplement(b))
		return b
	}
	return append(make([]byte, 4), p.Payload...)
}

func (p Packet) ports() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.Source.Port())
	return binary.BigEndian.AppendUint16(b, p.Destination.Port())
}

// checksum is the checksum of a TCP segment (RFC 9293 section 3.1), including
// the pseudo header.
func (p Packet) checksum(segment []byte) uint16 {
	src, dst := p.Source.Addr().As4(), p.Destination.Addr().As4()
	b := append(append([]byte{}, src[:]...), dst[:]...)
	b = append(b, 0, p.Protocol)
	b = binary.BigEndian.AppendUint16(b, uint16(len(segment)))
	return onesComplement(append(b, segment...))
}

// onesComplement is the internet checksum (RFC 1071).
func onesComplement(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
