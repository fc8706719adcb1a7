package subscriberdb

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// FuzzBindingValue: what is written by hand is what encoding/json would write,
// and comes back as it was.
func FuzzBindingValue(f *testing.F) {
	f.Add("u:alice", "alice", "0/0/0/7_0000A1", true, int64(1_772_359_200_000_000_001))
	f.Add("", "a\xff", "<&>\"\\\u2028", false, int64(0))
	f.Fuzz(func(t *testing.T, identity, user, session string, held bool, ns int64) {
		b := Binding{
			Group: "default", Inside: addr, Outside: netip.MustParseAddr("198.51.100.1"), First: 1024, Last: 1535,
			Held: held, Identity: identity, UserName: user, AcctSessionID: session, AllocatedAt: t0.Add(time.Second),
		}
		if ns != 0 {
			b.ReleasedAt, b.HoldUntil, b.GraceUntil = time.Unix(0, ns).UTC(), t0, t0.Add(time.Minute)
			b.Receipt = &Receipt{Elements: 2, Deleted: 7, Proof: "index", CutAt: b.ReleasedAt, ReapedAt: t0}
		}
		got := string(b.appendValue(nil))
		want, err := json.Marshal(bindingValue{
			b.Inside, b.Last, b.Held, octets(b.Identity), octets(b.UserName), octets(b.AcctSessionID),
			b.AllocatedAt, b.ReleasedAt, b.HoldUntil, b.GraceUntil, b.Receipt,
		})
		if err != nil || got != string(want) {
			t.Fatalf("written\n%s\nwant\n%s, %v", got, want, err)
		}
		again, err := parseBinding("default", "198.51.100.1:1024", got)
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("%s comes back as %+v, %v", got, again, err)
		}
	})
}
