package wire

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/subtle"
	"encoding/binary"
	"hash"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
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

// Reasons to refuse a packet.

// A Malformed is the reason why a packet cannot be read.
type Malformed struct {
	Reason string
	// Fatal is true if the following octets on the same connection are unreliable (RFC 6613
	// section 2.6.4).
	Fatal bool
}

func (m *Malformed) Error() string { return m.Reason }

var (
	errShortDatagram   = &Malformed{"datagram shorter than a RADIUS header", true}
	errLength          = &Malformed{"Length field below 20, above 4096 or beyond the datagram", true}
	errAttributeLength = &Malformed{"attribute length below 2 or beyond the packet", true}
	errValueSize       = &Malformed{"attribute value of the wrong size for its type", false}
	errRepeated        = &Malformed{"attribute repeated that may occur once", false}
	errManyAddresses   = &Malformed{"more Framed-IP-Address than a session can have", false}
	errNoStatusType    = &Malformed{"no Acct-Status-Type", false}
	errNoSessionID     = &Malformed{"no Acct-Session-Id", false}
)

// Authenticators.

var zeros [md5.Size]byte

// A Signer computes and checks authenticators. It keeps the hash state between packets and
// is used by one goroutine.
type Signer struct {
	hash hash.Hash
	sum  [md5.Size]byte
}

// NewSigner returns a Signer.
func NewSigner() *Signer { return &Signer{hash: md5.New()} }

// Authentic reports whether the Request Authenticator is
// MD5(Code + Identifier + Length + 16 zero octets + attributes + secret)
// (RFC 2866 section 3).
func (s *Signer) Authentic(p Packet, secret []byte) bool {
	sum := s.digest(p, zeros[:], secret)
	return subtle.ConstantTimeCompare(sum, p[4:HeaderLen]) == 1
}

// Sign writes the Response Authenticator into a reply: MD5(Code + Identifier +
// Length + Request Authenticator + attributes + secret).
func (s *Signer) Sign(reply Packet, request [16]byte, secret []byte) {
	copy(reply[4:HeaderLen], request[:])
	copy(reply[4:HeaderLen], s.digest(reply, reply[4:HeaderLen], secret))
}

func (s *Signer) digest(p Packet, authenticator, secret []byte) []byte {
	s.hash.Reset()
	s.hash.Write(p[:4])
	s.hash.Write(authenticator)
	s.hash.Write(p.attributes())
	s.hash.Write(secret)
	return s.hash.Sum(s.sum[:0])
}

// MessageAuthentic reports whether the Message-Authenticator of p, whose attributes are a,
// is the HMAC-MD5 of the packet with the value itself zeroed (RFC 3579 section 3.2). In an
// Accounting-Request the Request Authenticator counts as zero too, because it is computed
// afterwards; in a Status-Server it is included as sent (RFC 5997 section 3).
func MessageAuthentic(p Packet, a *Attributes, secret []byte) bool {
	value := a.messageAuth // aliases p
	sent := [md5.Size]byte(value)
	clear(value)
	defer func() { copy(value, sent[:]) }()

	mac := hmac.New(md5.New, secret)
	mac.Write(p[:4])
	if p.Code() == radius.CodeAccountingRequest {
		mac.Write(zeros[:])
	} else {
		mac.Write(p[4:HeaderLen])
	}
	mac.Write(p.attributes())
	return hmac.Equal(mac.Sum(nil), sent[:])
}

// The reply.

// ReplyLen returns the length of the reply to a request with these attributes.
func (a *Attributes) ReplyLen() int { return HeaderLen + a.proxyStates }

// AppendReply appends the Accounting-Response to p, without its authenticator. With the
// length [Attributes.ReplyLen] it has every Proxy-State of the request in order (RFC 2866
// section 2.1), with HeaderLen none; a reply has nothing else.
func AppendReply(b []byte, p Packet, length int) Packet {
	b = append(b, byte(radius.CodeAccountingResponse), p.Identifier())
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, zeros[:]...)
	if length == HeaderLen {
		return b
	}
	for rest := p.attributes(); len(rest) > 0; rest = rest[rest[1]:] {
		if radius.Type(rest[0]) == rfc2865.ProxyState_Type {
			b = append(b, rest[:rest[1]]...)
		}
	}
	return b
}
