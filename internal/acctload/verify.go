package acctload

import "crypto/md5"

// A verifier checks the Response Authenticator of one reply (RFC 2866 section
// 3): MD5 over the packet, with the request's authenticator in place of its own,
// and the secret.
type verifier struct {
	whole []byte // packet and secret
	sent  [md5.Size]byte
}

// newVerifier appends the secret to the packet in place.
func newVerifier(packet, secret []byte) verifier {
	return verifier{
		whole: append(packet, secret...),
		sent:  [md5.Size]byte(packet[authenticatorAt:headerLength]),
	}
}

// answers reports whether the reply answers the request with this
// authenticator.
func (v *verifier) answers(authenticator []byte) bool {
	copy(v.whole[authenticatorAt:headerLength], authenticator)
	return md5.Sum(v.whole) == v.sent
}

// wellFormed reports whether b consists of whole attributes.
func wellFormed(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return false
		}
		b = b[b[1]:]
	}
	return true
}
