package netlab

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// GRE is the number of generic routing encapsulation (RFC 2784).
const GRE uint8 = 47

// Send sends an arbitrary packet: of any source and protocol, outside of any
// flow. Ports and flags come from p. An ICMP packet of no Type is an echo request
// with the source port as id, or, with Quoted, the error "port unreachable". The
// namespace's route to the destination determines the interface. It needs
// CAP_NET_RAW.
func (n *Namespace) Send(p Packet) error {
	if err := n.sendBytes(p.bytes()); err != nil {
		return fmt.Errorf("send a packet of protocol %d from %s to %s: %w", p.Protocol, p.Source, p.Destination, err)
	}
	return nil
}

// SendFragments sends a packet in fragments of size octets of content each, a
// multiple of 8, in the order given: numbers from 0, of which some may be left
// out. The identification marks them as parts of one packet (RFC 791 section 3.2).
func (n *Namespace) SendFragments(p Packet, id uint16, size int, order []int) error {
	fragments := p.fragments(id, size)
	for _, i := range order {
		if err := n.sendBytes(fragments[i]); err != nil {
			return fmt.Errorf("send fragment %d of %d from %s to %s: %w", i, len(fragments), p.Source, p.Destination, err)
		}
	}
	return nil
}

// sendBytes sends a packet to the destination in its header.
func (n *Namespace) sendBytes(b []byte) error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte(b[16:20])})
	})
}

func (p Packet) fragments(id uint16, size int) [][]byte {
	const header, more = 20, 0x2000
	whole := p.bytes()
	var all [][]byte
	for at := 0; at < len(whole)-header; at += size {
		end := min(at+size, len(whole)-header)
		b := append(append([]byte{}, whole[:header]...), whole[header+at:header+end]...)
		field := uint16(at / 8)
		if end < len(whole)-header {
			field |= more
		}
		binary.BigEndian.PutUint16(b[4:], id)
		binary.BigEndian.PutUint16(b[6:], field)
		all = append(all, b)
	}
	return all
}

// bytes returns the packet with its IPv4 header (RFC 791 section 3.1), without
// the fields that the kernel fills in: length, identification and checksum.
func (p Packet) bytes() []byte {
	const noOptions, hops, df = 0x45, 64, 0x40
	src, dst := p.Source.Addr().As4(), p.Destination.Addr().As4()
	b := []byte{noOptions + byte(len(p.Options)/4), 0, 0, 0, 0, 0, 0, 0, cmp.Or(p.TTL, hops), p.Protocol, 0, 0}
	if p.DF {
		b[6] = df
	}
	b = append(append(b, src[:]...), dst[:]...)
	b = append(b, p.Options...)
	return append(b, p.transport()...)
}

// whole returns the packet with length and checksum filled in, for a quotation.
func (p Packet) whole() []byte {
	b := p.bytes()
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[10:], onesComplement(b[:20+len(p.Options)]))
	return b
}

func (p Packet) transport() []byte {
	switch p.Protocol {
	case TCP:
		const words = 5 << 4 // the header's length
		b := binary.BigEndian.AppendUint32(p.ports(), cmp.Or(p.Seq, 1))
		b = binary.BigEndian.AppendUint32(b, p.Ack)
		b = append(b, words, byte(p.Flags), 0xff, 0xff, 0, 0, 0, 0)
		b = append(b, p.Payload...)
		binary.BigEndian.PutUint16(b[16:], p.checksum(b))
		return b
	case UDP:
		b := binary.BigEndian.AppendUint16(p.ports(), uint16(8+len(p.Payload)))
		return append(append(b, 0, 0), p.Payload...) // no checksum (RFC 768)
	case ICMP:
		return p.icmp()
	}
	return append(make([]byte, 4), p.Payload...)
}

func (p Packet) icmp() []byte {
	const echo, unreachable, port = 8, 3, 3 // RFC 792
	b := []byte{cmp.Or(p.Type, echo), p.Code, 0, 0}
	if p.Quoted != nil {
		if p.Type == 0 {
			b[0], b[1] = unreachable, port
		}
		b = binary.BigEndian.AppendUint16(append(b, 0, 0), p.MTU)
		b = append(b, p.Quoted.whole()...)
	} else {
		b = binary.BigEndian.AppendUint16(b, p.Source.Port())
		b = append(append(b, 0, 1), p.Payload...)
	}
	sum := onesComplement(b)
	if p.BadChecksum {
		sum++
	}
	binary.BigEndian.PutUint16(b[2:], sum)
	return b
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
