package radiusacct

import "testing"

// TestDigest: a packet that is sent again to the octet has the same digest, and one that
// differs in anything another, be it the Identifier.
func TestDigest(t *testing.T) {
	of := func(authenticator byte) packet {
		p := make(packet, headerLength)
		for i := 4; i < headerLength; i++ {
			p[i] = authenticator
		}
		return p
	}
	if a, b, c := of(1).digest(), of(1).digest(), of(2).digest(); a != b || a == c || a == 0 {
		t.Errorf("digests %x, %x and %x", a, b, c)
	}
}
