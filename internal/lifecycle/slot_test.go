package lifecycle

import (
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestHolderOf: a binding's holder has the identity of the record's subscriber.
func TestHolderOf(t *testing.T) {
	for _, user := range []string{"", "alice"} {
		for _, station := range []string{"", "02-00"} {
			for _, session := range []string{"", "s1"} {
				r := subscriber.Record{UserName: user, CallingStationID: station}
				r.Inside, r.AcctSessionID = netip.MustParseAddr("100.64.0.1"), session
				packed := r.Pack()
				want := nat.Holder{Inside: r.Inside, Identity: r.Identity(), UserName: user, AcctSessionID: session}
				if got := holderOf(&packed); got != want {
					t.Errorf("of %+v: %+v", r, got)
				}
			}
		}
	}
}
