package subscriberdb

import (
	"maps"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestRawOctets_ACCT23: record, feed, session state and online entry have all octets of a
// Start.
func TestRawOctets_ACCT23(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		odd := start("0/0/7 a%", addr, 0)
		odd.UserName, odd.NAS, odd.CallingStationID = "-", "nas \n1", "\x00\xff="
		odd.NASAddress = netip.MustParseAddr("2001:db8::1")
		bare := start("b", next, 0)
		bare.UserName = ""
		record(t, db, odd, bare)
		for _, c := range changes(t, db, "default") {
			r, err := db.Get(t.Context(), c.Record.Key)
			if err != nil {
				t.Fatal(err)
			}
			checkAlike(t, c.Record, r)
			w, err := codec.ParseOnlineEntry(r.Key, client.HGet(t.Context(), codec.OnlineKey("default"), r.Inside.String()).Val())
			if err != nil || w.SessionID != r.SessionID || w.UserName != r.UserName {
				t.Errorf("online entry %+v of %+v, %v", w, r, err)
			}
			state, err := codec.ParseState(client.Get(t.Context(), codec.SessionKey("default", r.SessionID)).Val())
			want := subscriber.OpenState(&r)
			want.Exact, want.Stamp = true, t0
			if err != nil || state != want {
				t.Errorf("state %+v of %+v, %v", state, r, err)
			}
		}
		if r, _ := db.Get(t.Context(), key(addr)); r.SessionID != odd.SessionID || r.CallingStationID != odd.CallingStationID || r.UserName != "-" {
			t.Errorf("record %+v of %+v", r, odd)
		}
		odd.Kind, odd.At = subscriber.EventStop, t0.Add(time.Hour)
		record(t, db, odd)
		if got := online(t, db, addr); got != "" {
			t.Errorf("%q is online after its Stop", got)
		}
	})
}

// checkAlike compares records except for their expiry, which is in milliseconds in the
// feed.
func checkAlike(t *testing.T, told, stands subscriber.Record) {
	t.Helper()
	told.ExpiresAt, stands.ExpiresAt = time.Time{}, time.Time{}
	if !reflect.DeepEqual(told, stands) {
		t.Errorf("the feed tells %+v, there stands %+v", told, stands)
	}
}

// TestBatchTellsOfEach: one call creates, refreshes or ends each record that is as
// expected, and refuses the others, which are decided again.
func TestBatchTellsOfEach(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db, other := newDB(t, client), newDB(t, client)
		want := map[netip.Addr]string{}
		var starts, stops []subscriber.Event
		for i := range 100 {
			id, inside := string(rune('A'+i)), netip.AddrFrom4([4]byte{100, 64, 1, byte(i)})
			starts = append(starts, start(id, inside, time.Minute))
			if i%3 == 0 {
				record(t, other, start("old", inside, time.Duration(i)*time.Millisecond))
			}
			if i%2 == 0 {
				stops = append(stops, stop(id, inside, time.Hour))
			} else {
				want[inside] = id
			}
		}
		record(t, db, starts...)
		for i := range starts {
			starts[i].Kind, starts[i].At = subscriber.EventInterim, t0.Add(2*time.Minute)
		}
		record(t, other, starts[:50]...) // now the versions in the first DB's cache are old
		record(t, db, starts...)
		record(t, other, stops...)
		compareOnline(t, db, want)
		stands := map[netip.Addr]string{}
		for _, c := range changes(t, db, "default") {
			if stands[c.Record.Inside] = c.Record.AcctSessionID; c.Kind == subscriber.Deleted {
				delete(stands, c.Record.Inside)
			}
		}
		if !maps.Equal(stands, want) {
			t.Errorf("by the feed %v are online, want %v", stands, want)
		}
		if n := client.HLen(t.Context(), codec.OnlineKey("default")).Val(); int(n) != len(want) {
			t.Errorf("%d online entries, want %d", n, len(want))
		}
	})
}
