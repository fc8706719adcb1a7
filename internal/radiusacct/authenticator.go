package radiusacct

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/subtle"
	"hash"

	"layeh.com/radius"
)

var zeros [md5.Size]byte

// A signer computes and checks authenticators. It keeps the hash state between
// packets and belongs to one goroutine.
type signer struct {
	hash hash.Hash
	sum  [md5.Size]byte
}

func newSigner() *signer { return &signer{hash: md5.New()} }

// authentic reports whether the Request Authenticator is
// MD5(Code + Identifier + Length + 16 zero octets + attributes + secret)
// (RFC 2866 section 3).
func (s *signer) authentic(p packet, secret []byte) bool {
	sum := s.digest(p, zeros[:], secret)
	return subtle.ConstantTimeCompare(sum, p[4:headerLength]) == 1
}

// sign writes the Response Authenticator into a reply: MD5(Code + Identifier +
// Length + Request Authenticator + attributes + secret).
func (s *signer) sign(reply packet, request [16]byte, secret []byte) {
	copy(reply[4:headerLength], request[:])
	copy(reply[4:headerLength], s.digest(reply, reply[4:headerLength], secret))
}

func (s *signer) digest(p packet, authenticator, secret []byte) []byte {
	s.hash.Reset()
	s.hash.Write(p[:4])
	s.hash.Write(authenticator)
	s.hash.Write(p.attributes())
	s.hash.Write(secret)
	return s.hash.Sum(s.sum[:0])
}

// messageAuthentic reports whether value, the Message-Authenticator in place in
// p, is the HMAC-MD5 of the packet with the value itself zeroed (RFC 3579 section
// 3.2). In an Accounting-Request the Request Authenticator, which is computed
// afterwards, counts as zero too; in a Status-Server it stands as sent (RFC 5997
// section 3).
func messageAuthentic(p packet, value radius.Attribute, secret []byte) bool {
	sent := [md5.Size]byte(value)
	clear(value)
	defer func() { copy(value, sent[:]) }()

	mac := hmac.New(md5.New, secret)
	mac.Write(p[:4])
	if p.code() == radius.CodeAccountingRequest {
		mac.Write(zeros[:])
	} else {
		mac.Write(p[4:headerLength])
	}
	mac.Write(p.attributes())
	return hmac.Equal(mac.Sum(nil), sent[:])
}
