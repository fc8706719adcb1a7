package wire

import (
	"encoding/binary"

	"layeh.com/radius"
)

// HeaderLen is the length of Code, Identifier, Length and Authenticator (RFC 2866 section
// 3) in octets.
const HeaderLen = 20

// A Packet is one RADIUS packet, aliasing its datagram and cut to its Length.
type Packet []byte

// Parse cuts a datagram to its packet: octets beyond the Length field are padding (RFC 2865
// section 3). Lengths up to 4096 pass: RFC 2866 says 4095, RFC 2865 says 4096, and peers
// use the latter.
func Parse(datagram []byte) (Packet, *Malformed) {
	if len(datagram) < HeaderLen {
		return nil, errShortDatagram
	}
	length := int(binary.BigEndian.Uint16(datagram[2:4]))
	if length < HeaderLen || length > radius.MaxPacketLength || length > len(datagram) {
		return nil, errLength
	}
	return datagram[:length:length], nil
}

// First returns the first packet of a stream, by its Length field (RFC 6613 section 2.6.4);
// nil if it is not complete. After an error the begin of the next packet is unknown.
func First(stream []byte) (Packet, *Malformed) {
	if len(stream) < 4 {
		return nil, nil
	}
	length := int(binary.BigEndian.Uint16(stream[2:4]))
	if length < HeaderLen || length > radius.MaxPacketLength {
		return nil, errLength
	}
	if len(stream) < length {
		return nil, nil
	}
	return stream[:length:length], nil
}

// Code returns the type of the packet.
func (p Packet) Code() radius.Code { return radius.Code(p[0]) }

// Identifier matches requests and replies (RFC 2866 section 3).
func (p Packet) Identifier() byte { return p[1] }

// Authenticator returns the Request or Response Authenticator.
func (p Packet) Authenticator() [16]byte { return [16]byte(p[4:HeaderLen]) }

// Digest differs between packets, except between identical ones: the Request Authenticator
// is a hash of the whole (RFC 2866 section 3).
func (p Packet) Digest() uint64 { return binary.BigEndian.Uint64(p[4:HeaderLen]) }

func (p Packet) attributes() []byte { return p[HeaderLen:] }
