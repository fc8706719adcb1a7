package wire

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/subtle"
	"hash"

	"layeh.com/radius"
)

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
