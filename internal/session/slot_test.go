package session

import (
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestSameHolder holds the short way against the long one.
func TestSameHolder(t *testing.T) {
	var all []subscriber.Record
	for _, user := range []string{"", "alice"} {
		for _, station := range []string{"", "02-00"} {
			for _, session := range []string{"", "s1"} {
				r := subscriber.Record{UserName: user, CallingStationID: station}
				r.Inside, r.AcctSessionID = netip.MustParseAddr("100.64.0.1"), session
				all = append(all, r)
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			if got, want := sameHolder(&a, &b), holderOf(&a) == holderOf(&b); got != want {
				t.Errorf("%+v and %+v: %v, want %v", holderOf(&a), holderOf(&b), got, want)
			}
		}
	}
}
