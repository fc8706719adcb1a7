package nftnat

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestSharedPortTowardsOneHost: two inside endpoints that share a port cannot both reach one
// remote endpoint by it. The mapped one, if it is the second, is dropped there and counted, and
// reaches all others; once the other's session has ended it reaches this one too.
func TestSharedPortTowardsOneHost(t *testing.T) {
	w := newWireTestWith(t, fullCone)
	apply(t, w, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 1024}})
	a, b, other := w.host(t, 0, 9), w.host(t, 1, 9), w.host(t, 1, 10)
	mapped, sharing := w.socket(t, alice, 5000), w.socket(t, alice, 5001)
	seen := seenAs(t, mapped, a)
	wantPass(t, sharing, portOf(b), b, seen)
	failed := func() (packets uint64) {
		for _, c := range dropsOf(t, w) {
			if c.Reason == nat.DropBlockFull {
				packets += c.Packets
			}
		}
		return packets
	}
	before := failed()
	wantSilence(t, mapped, portOf(b), b)
	testenv.Succeeds(t, func() error {
		if failed() == before {
			return errors.New("the packet is not counted")
		}
		return nil
	})
	wantPass(t, mapped, portOf(other), other, seen)
	run(t, w.Lab, "conntrack", "-D", "-p", "udp", "-s", alice.String(), "--sport", "5001")
	wantPass(t, mapped, portOf(b), b, netip.AddrPortFrom(eip, 1024))
}
