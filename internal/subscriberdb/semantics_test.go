package subscriberdb

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// verdicts collects the verdicts on events.
type verdicts struct {
	mu   sync.Mutex
	seen []subscriber.Verdict
}

func (v *verdicts) observe(_ string, what subscriber.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = append(v.seen, what)
}

// TestForeignNAS_SES16: an Accounting-On from a client for another client's NAS has no
// effect, and is counted; from its own client it has an effect.
func TestForeignNAS_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		var seen verdicts
		db := newDB(t, client, func(o *Options) { o.OnVerdict = seen.observe })
		record(t, db, start("a", addr, 0))
		on := event(subscriber.EventAccountingOn, "", noAddr, time.Hour)
		on.Client = "bng2"
		record(t, db, on)
		if !slices.Contains(seen.seen, subscriber.ForeignNAS) {
			t.Errorf("verdicts %v", seen.seen)
		}
		if n := client.SCard(t.Context(), codec.RestartsKey("default")).Val(); n != 0 {
			t.Errorf("%d restarts recorded", n)
		}
		on.Client = "bng1"
		record(t, db, on)
		if err := db.sweepAll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := online(t, db, addr); got != "" {
			t.Errorf("%s is online after the restart of its NAS", got)
		}
	})
}

// TestSessionIdentity_SES01: the same Acct-Session-Id from another NAS, or from a NAS of
// the same name of another client, is another session; with another User-Name it is the
// same session.
func TestSessionIdentity_SES01(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		ids := []subscriber.SessionID{
			{Client: "bng1", NAS: "nas1", AcctSessionID: "a"},
			{Client: "bng1", NAS: "nas2", AcctSessionID: "a"},
			{Client: "bng2", NAS: "nas1", AcctSessionID: "a"},
		}
		tell := func(kind subscriber.EventKind, i int, user string, after time.Duration) {
			ev := event(kind, "", netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), after)
			ev.SessionID, ev.UserName = ids[i], user
			record(t, db, ev)
		}
		for i := range ids {
			tell(subscriber.EventStart, i, "alice", 0)
		}
		tell(subscriber.EventStop, 1, "alice@isp.example", time.Minute)
		got := map[netip.Addr]subscriber.SessionID{}
		err := db.Records(t.Context(), "default", func(batch []subscriber.Record) error {
			for _, r := range batch {
				got[r.Inside] = r.SessionID
			}
			return nil
		})
		want := map[netip.Addr]subscriber.SessionID{
			netip.MustParseAddr("100.64.0.0"): ids[0], netip.MustParseAddr("100.64.0.2"): ids[2],
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("online %v, %v, want %v", got, err, want)
		}
	})
}

// TestLogCannotBeForged_ACCT23: the name of a NAS is logged in one line, as a value.
func TestLogCannotBeForged_ACCT23(t *testing.T) {
	var log bytes.Buffer
	db := newDB(t, redistest.Start(t), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	ev := start("a", addr, 0)
	ev.NAS = "nas\nlevel=ERROR msg=forged\r\x1b[2J"
	record(t, db, ev)
	on := event(subscriber.EventAccountingOn, "", noAddr, time.Hour)
	on.NAS, on.Client = ev.NAS, "bng2" // this is logged
	record(t, db, on)
	if text := log.String(); strings.Count(text, "\n") != 1 || strings.ContainsAny(text, "\r\x1b") || !strings.Contains(text, "bng2") {
		t.Errorf("log: %q", text)
	}
}

// TestService_SES21: the Stop of a service, under any identifier, leaves the subscriber
// online.
func TestService_SES21(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, start("a", addr, 0))
		for _, id := range []string{"a", "a:1"} {
			ev := stop(id, addr, time.Hour)
			ev.Service, ev.ParentSessionID = true, "a"
			record(t, db, ev)
		}
		record(t, db, interim("a", addr, 2*time.Hour))
		checkStory(t, db, "default", []string{"created 100.64.0.1 a", "updated 100.64.0.1 a"})
	})
}

// TestMultilink_SES20: two links are one record, through two daemons.
func TestMultilink_SES20(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		dbs := [2]*DB{newDB(t, client), newDB(t, client)}
		bundled := func(ev subscriber.Event) subscriber.Event {
			ev.MultiSessionID, ev.UserName = "m 1", "alice"
			return ev
		}
		record(t, dbs[0], bundled(start("a", addr, 0)))
		record(t, dbs[1], bundled(start("b/ b", addr, time.Minute)))
		record(t, dbs[0], bundled(interim("a", addr, 2*time.Minute)), bundled(stop("a", addr, 3*time.Minute)))
		record(t, dbs[1], bundled(interim("b/ b", addr, 4*time.Minute)))
		r, err := dbs[0].Get(t.Context(), key(addr))
		if err != nil || !slices.Equal(r.Links, []string{"b/ b"}) || r.AcctSessionID != "a" || r.MultiSessionID != "m 1" {
			t.Errorf("%+v, %v", r, err)
		}
		record(t, dbs[0], bundled(stop("b/ b", addr, 5*time.Minute)))
		want := []string{
			"created 100.64.0.1 a", "updated 100.64.0.1 a", "updated 100.64.0.1 a", "updated 100.64.0.1 a",
			"updated 100.64.0.1 a", "deleted 100.64.0.1 a STOP",
		}
		checkStory(t, dbs[0], "default", want)
	})
}

// TestSeveralAddresses_ACCT28: a session with two addresses has two records,
// and its Stop ends both.
func TestSeveralAddresses_ACCT28(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		both := func(kind subscriber.EventKind, after time.Duration) []subscriber.Event {
			list := []subscriber.Event{event(kind, "a", addr, after), event(kind, "a", next, after)}
			for i := range list {
				list[i].Addresses = []netip.Addr{addr, next}
			}
			return list
		}
		record(t, db, both(subscriber.EventStart, 0)...)
		record(t, db, both(subscriber.EventInterim, time.Minute)...)
		if online(t, db, addr) != "a" || online(t, db, next) != "a" {
			t.Errorf("feed %q", story(changes(t, db, "default")))
		}
		record(t, newDB(t, client), both(subscriber.EventStop, time.Hour)...)
		compareOnline(t, db, map[netip.Addr]string{})
	})
}

// TestIPv6_ACCT29: the IPv6 addresses and prefixes of a session are in the record and the
// feed; an Interim without them does not remove them.
func TestIPv6_ACCT29(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		ev := start("a", addr, 0)
		ev.FramedIPv6Addresses = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
		ev.FramedIPv6Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}
		ev.DelegatedPrefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/48")}
		record(t, db, ev)
		record(t, db, interim("a", addr, time.Minute))
		r, err := db.Get(t.Context(), key(addr))
		if err != nil {
			t.Fatal(err)
		}
		list := changes(t, db, "default")
		for where, got := range map[string]subscriber.Record{"hash": r, "feed": list[len(list)-1].Record} {
			if !reflect.DeepEqual(got.FramedIPv6Addresses, ev.FramedIPv6Addresses) ||
				!reflect.DeepEqual(got.FramedIPv6Prefixes, ev.FramedIPv6Prefixes) ||
				!reflect.DeepEqual(got.DelegatedPrefixes, ev.DelegatedPrefixes) {
				t.Errorf("%s: %+v", where, got)
			}
		}
	})
}

// TestClientTTL_SES18: a client's own time to live takes precedence over the group's.
func TestClientTTL_SES18(t *testing.T) {
	client := redistest.Start(t)
	db := newDB(t, client, func(o *Options) { o.Groups[0].ClientTTL = map[string]time.Duration{"bng2": 0, "bng3": time.Hour} })
	for i, c := range []struct {
		name string
		want time.Duration
	}{{"bng1", testTTL}, {"bng2", -1}, {"bng3", time.Hour}} {
		inside := netip.AddrFrom4([4]byte{100, 64, 0, byte(i)})
		for _, kind := range []subscriber.EventKind{subscriber.EventStart, subscriber.EventInterim} {
			ev := event(kind, "a", inside, time.Duration(kind)*time.Minute)
			ev.Client = c.name
			record(t, db, ev)
			ttl := client.PTTL(t.Context(), codec.RecordKey("default", inside)).Val()
			if c.want < 0 && ttl >= 0 || c.want > 0 && (ttl > c.want || ttl < c.want-time.Minute) {
				t.Errorf("%s: time to live %v, want %v", c.name, ttl, c.want)
			}
		}
	}
}

// TestStateOutlives_SES10: Interims that only change counters keep the session's state for
// the TTLs of its record and of a tombstone.
func TestStateOutlives_SES10(t *testing.T) {
	client := redistest.Start(t)
	db := newDB(t, client)
	record(t, db, start("a", addr, 0))
	name := codec.SessionKey("default", start("a", addr, 0).SessionID)
	client.PExpire(t.Context(), name, time.Minute) // as if the time had passed
	record(t, db, interim("a", addr, time.Hour))
	if ttl := client.PTTL(t.Context(), name).Val(); ttl > time.Minute {
		t.Errorf("written again after an hour, %v", ttl)
	}
	record(t, db, interim("a", addr, 13*time.Hour))
	if ttl := client.PTTL(t.Context(), name).Val(); ttl < testTTL+defaultTombstoneTTL {
		t.Errorf("time to live %v", ttl)
	}
}

// TestEndedSessionsOfOneClient_I10: a client that makes sessions without an address, or
// ends sessions that never began, gets a bounded number of tombstones, and the bound is
// reported; the tombstones of another client keep their full time to live.
func TestEndedSessionsOfOneClient_I10(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		var counts counted
		var log lines
		db := newDB(t, client, func(o *Options) {
			o.Tombstones, o.Logger = 40, log.logger()
			o.Limited = func(client string, b Bound) { counts.count(client + " " + string(b)) }
		})
		ttl := func(group string, ev subscriber.Event) time.Duration {
			return client.PTTL(t.Context(), codec.SessionKey(group, ev.SessionID)).Val()
		}
		for i := range 60 {
			ev := start(fmt.Sprint("x", i), noAddr, 0)
			ev.Client, ev.Via = "bng2", "bng2"
			if i%2 == 1 {
				ev = event(subscriber.EventStop, ev.AcctSessionID, addr, 0)
				ev.Client, ev.Via = "bng2", "bng2"
			}
			record(t, db, ev)
			group := "default"
			if i%2 == 0 {
				group = codec.Reserved
			}
			if got := ttl(group, ev); (got > txn.CrowdedTTL) != (i < 40) {
				t.Fatalf("session %d of the client lives for %v", i, got)
			}
		}
		record(t, db, start("a", addr, 0), start("b", next, 0), stop("a", addr, time.Minute), stop("b", next, time.Minute))
		for _, ev := range []subscriber.Event{start("a", addr, 0), start("b", next, 0)} {
			if got := ttl("default", ev); got <= txn.CrowdedTTL {
				t.Errorf("the end of %s of another client is remembered for %v", ev.AcctSessionID, got)
			}
		}
		if got := counts.of("bng2 tombstones"); got != 20 || counts.of("bng1 tombstones") != 0 {
			t.Errorf("%d events found no room", got)
		}
		if got := log.with("a RADIUS client ends more"); len(got) != 1 || got[0]["client"] != "bng2" {
			t.Errorf("logged: %v", got)
		}
	})
}

// TestFeedEntriesAreBounded_I10: no feed entry exceeds its bound, with attributes of any
// length and any number of links.
func TestFeedEntriesAreBounded_I10(t *testing.T) {
	client := redistest.Start(t)
	var counts counted
	db := newDB(t, client, func(o *Options) {
		o.Limited = func(client string, b Bound) { counts.count(client + " " + string(b)) }
	})
	long := strings.Repeat("\xff", 253)
	var events []subscriber.Event
	for i := range 200 {
		ev := start(fmt.Sprint(i), netip.AddrFrom4([4]byte{100, 64, 1, byte(i)}), 0)
		ev.AcctSessionID += long[:249]
		ev.UserName, ev.NAS, ev.CallingStationID, ev.Class = long, long, long, long
		events = append(events, ev)
	}
	record(t, db, events...)
	for i := range 100 {
		link := start(fmt.Sprint("l", i), addr, time.Duration(i)*time.Second)
		link.AcctSessionID += long[:249]
		link.NAS, link.UserName, link.MultiSessionID, link.Class = long, long, long, long
		record(t, db, link)
	}
	entries, err := client.XRange(t.Context(), codec.FeedKey("default"), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	longest := 0
	for _, e := range entries {
		octets := 0
		for name, value := range e.Values {
			octets += len(name) + len(value.(string))
		}
		longest = max(longest, octets)
	}
	if longest > txn.FeedEntryOctets || longest < txn.FeedEntryOctets/2 {
		t.Errorf("the longest entry has %d octets, want up to %d", longest, txn.FeedEntryOctets)
	}
	if got := counts.of("bng1 links"); got != 68 {
		t.Errorf("%d links found no room", got)
	}
	if len(changes(t, db, "default")) != len(events)+100 {
		t.Errorf("the feed tells of %d changes", len(changes(t, db, "default")))
	}
}
