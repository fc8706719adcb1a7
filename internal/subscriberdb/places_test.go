package subscriberdb

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// TestPlaces_I10: a client at its limit of subscribers online begins no more sessions; each
// refusal is counted, and logged. Its sessions go on, and their addresses may pass to other
// sessions; once a session has ended, an Interim begins a refused one. Other clients are
// not affected.
func TestPlaces_I10(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		var seen verdicts
		var log lines
		db := newDB(t, client, func(o *Options) { o.OnVerdict, o.Logger = seen.observe, log.logger() })
		db.SetPlaces(map[string]int{"bng1": 3}, func(string) int {
			list, err := client.HKeys(t.Context(), codec.OnlineKey("default")).Result()
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		})
		place := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}) }
		want := func(v subscriber.Verdict, ev subscriber.Event) {
			t.Helper()
			record(t, db, ev)
			if got := latest(&seen); got != v {
				t.Errorf("%v of %s: %v, want %v", ev.Kind, ev.AcctSessionID, got, v)
			}
		}
		for i := range 3 {
			want(subscriber.Opened, start(fmt.Sprint("s", i), place(i), 0))
		}
		for i := 3; i < 6; i++ {
			want(subscriber.ClientFull, start(fmt.Sprint("s", i), place(i), 0))
			want(subscriber.ClientFull, interim(fmt.Sprint("s", i), place(i), time.Minute))
		}
		want(subscriber.Refreshed, interim("s0", place(0), time.Minute))
		want(subscriber.TookOver, start("t", place(1), 2*time.Minute))
		want(subscriber.Opened, through("bng2", start("other", place(9), 0)))
		want(subscriber.Stopped, stop("s0", place(0), 3*time.Minute))
		want(subscriber.Stopped, stop("s2", place(2), 3*time.Minute))
		want(subscriber.Opened, interim("s4", place(4), 4*time.Minute))
		if got := log.with("accounting of one subscriber more"); len(got) != 1 || got[0]["client"] != "bng1" {
			t.Errorf("logged: %v", got)
		}
	})
}

// TestOctetsOfASubscriber_I10: the memory of Redis for a subscriber that is online is
// bounded, for the longest packets and any number of links, so that a limit of subscribers
// is a bound in octets. Links beyond those of a record are stored like ended sessions, of
// which a client has a share.
func TestOctetsOfASubscriber_I10(t *testing.T) {
	client := redistest.Start(t)
	var counts counted
	db := newDB(t, client, func(o *Options) {
		o.Tombstones = 20
		o.Limited = func(client string, b Bound) { counts.count(string(b)) }
	})
	long := strings.Repeat("\xff", 253)
	ev := start("a", addr, 0)
	ev.UserName, ev.NAS, ev.CallingStationID, ev.Class, ev.MultiSessionID = long, long, long, long, long
	for range 10 { // a packet has 4096 octets (RFC 2866 section 3)
		ev.MoreClasses = append(ev.MoreClasses, long)
	}
	for i := range 60 {
		ev.AcctSessionID = fmt.Sprintf("%02d", i) + long[:249]
		ev.Arrival = ev.Arrival.Add(time.Second)
		record(t, db, ev)
	}
	octets, others := client.MemoryUsage(t.Context(), codec.RecordKey("default", addr), 0).Val(), 0
	for _, key := range client.Keys(t.Context(), codec.SessionKeyPrefix("default")+"*").Val() {
		switch ttl := client.PTTL(t.Context(), key).Val(); {
		case ttl > defaultTombstoneTTL:
			octets += client.MemoryUsage(t.Context(), key, 0).Val()
		case ttl > txn.CrowdedTTL:
			others++
		}
	}
	t.Logf("%d octets", octets)
	const bound = 130_000 // the bound in sessiond.example.yaml
	if octets > bound || octets < bound/2 {
		t.Errorf("a subscriber takes %d octets of Redis, want at most %d", octets, bound)
	}
	if others != 20 || counts.of("tombstones") != 8 || counts.of("links") != 28 {
		t.Errorf("%d links more are remembered, and found no room %d times", others, counts.of("tombstones"))
	}
}
