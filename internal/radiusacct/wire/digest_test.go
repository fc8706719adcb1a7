package wire

import "testing"

// TestDigest: identical packets have the same digest, and packets that differ at all, if
// only in the Identifier, have different ones.
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
