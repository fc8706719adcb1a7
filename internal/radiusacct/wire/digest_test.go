package wire

import "testing"

// TestDigest: a packet that is sent again to the octet has the same digest, and one that
// differs in anything another, be it the Identifier.
func TestDigest(t *testing.T) {
	of := func(authenticator byte) Packet {
		p := make(Packet, HeaderLen)
		for i := 4; i < HeaderLen; i++ {
			p[i] = authenticator
		}
		return p
	}
	if a, b, c := of(1).Digest(), of(1).Digest(), of(2).Digest(); a != b || a == c || a == 0 {
		t.Errorf("digests %x, %x and %x", a, b, c)
	}
}
