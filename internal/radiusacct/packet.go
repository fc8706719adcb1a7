package radiusacct

import (
	"encoding/binary"

	"layeh.com/radius"
)

// headerLength is Code, Identifier, Length and Authenticator (RFC 2866 section 3).
const headerLength = 20

// A packet is one RADIUS packet in place in its datagram, cut to its Length.
type packet []byte

// parsePacket cuts a datagram to the packet in it: what exceeds the Length
// field is padding and belongs to nothing (RFC 2865 section 3). Lengths up to
// 4096 pass: RFC 2866 says 4095, RFC 2865 says 4096, and peers use the latter.
func parsePacket(datagram []byte) (packet, *fault) {
	if len(datagram) < headerLength {
		return nil, errShortDatagram
	}
	length := int(binary.BigEndian.Uint16(datagram[2:4]))
	if length < headerLength || length > radius.MaxPacketLength || length > len(datagram) {
		return nil, errLength
	}
	return datagram[:length:length], nil
}

func (p packet) code() radius.Code       { return radius.Code(p[0]) }
func (p packet) identifier() byte        { return p[1] }
func (p packet) authenticator() [16]byte { return [16]byte(p[4:headerLength]) }

// digest tells the packet from every other one, but for those that are the same to the
// octet: the Request Authenticator is a hash of the whole (RFC 2866 section 3).
func (p packet) digest() uint64 { return binary.BigEndian.Uint64(p[4:headerLength]) }

func (p packet) attributes() []byte { return p[headerLength:] }
