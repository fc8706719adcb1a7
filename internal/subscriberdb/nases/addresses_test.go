package nases

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// TestNASAddresses: a name counts as used by several NASes once an earlier address is seen
// again, until a day after the last time.
func TestNASAddresses(t *testing.T) {
	type step struct {
		address        string // last octet; "" for none
		delay, after   time.Duration
		conflict, sign bool
	}
	many := func() (steps []step) {
		for _, a := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
			steps = append(steps, step{address: a})
		}
		return steps
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"one", []step{{address: "1"}, {address: "1"}, {}, {address: "1"}}},
		{"renumbered", []step{{address: "1"}, {address: "2"}, {address: "2"}, {address: "3"}}},
		{"two", []step{{address: "1"}, {address: "2"}, {address: "1", conflict: true, sign: true}, {address: "1", conflict: true}, {address: "2", conflict: true, sign: true}}},
		{"three", []step{{address: "1"}, {address: "2"}, {address: "3"}, {address: "1", conflict: true, sign: true}}},
		{"renumbered, and a spool is worked off", []step{{address: "1"}, {address: "2"}, {address: "1", delay: time.Hour}, {address: "2"}}},
		{"two, one of them late", []step{{address: "1"}, {address: "2"}, {address: "1", delay: time.Minute, conflict: true, sign: true}}},
		{"told apart since", []step{
			{address: "1"}, {address: "2"}, {address: "1", conflict: true, sign: true},
			{address: "1", after: conflictTime - 1, conflict: true}, {address: "1", after: conflictTime},
		}},
		{"without address", []step{{address: "1"}, {address: "2"}, {address: "1", conflict: true, sign: true}, {}}},
		{"more than are remembered", append(many(), step{address: "1"}, step{address: "3", conflict: true, sign: true})},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n Addresses
			for i, s := range c.steps {
				ev := prompt("nas1", 0, 0)
				if ev.Delay = s.delay; s.address != "" {
					ev.NASAddress = netip.MustParseAddr("192.0.2." + s.address)
				}
				conflict, sign := n.Note(&ev, func() time.Time { return t0.Add(s.after) })
				if conflict != s.conflict || sign != s.sign {
					t.Errorf("step %d: conflict %v, sign %v", i, conflict, sign)
				}
			}
		})
	}
}

// TestNASAddressesAreBounded: a client that invents names gets a bounded number of entries.
func TestNASAddressesAreBounded(t *testing.T) {
	var n Addresses
	ev := prompt("nas1", 0, 0)
	ev.NASAddress = netip.MustParseAddr("192.0.2.1")
	for i := range maxOfClient + 10 {
		ev.NAS = strconv.Itoa(i)
		n.Note(&ev, func() time.Time { return t0 })
	}
	if got := len(n.names); got != maxOfClient {
		t.Errorf("%d names", got)
	}
	ev.Client = "another"
	n.Note(&ev, func() time.Time { return t0 })
	if n.names[codec.NASOf(ev.SessionID)] == nil {
		t.Error("another client finds no room")
	}
}
