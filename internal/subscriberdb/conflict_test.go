package subscriberdb

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// counted counts calls by key.
type counted struct {
	mu    sync.Mutex
	times map[string]int
}

func (c *counted) count(client string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times == nil {
		c.times = map[string]int{}
	}
	c.times[client]++
}

func (c *counted) of(client string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.times[client]
}

// TestNASConflict_SES16: the restart of a NAS whose name another one uses too ends no
// session; each is counted, and the log has one line for many. All clients of a realm
// report the same NASes; another realm has NASes of its own.
func TestNASConflict_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		var seen verdicts
		var signs counted
		log := new(lines)
		db := newDB(t, client, func(o *Options) {
			o.OnVerdict, o.Conflict, o.Logger = seen.observe, signs.count, log.logger()
			o.Now = func() time.Time { return t0.Add(time.Hour) }
		})
		at := func(ev subscriber.Event, via, address string) subscriber.Event {
			ev.NAS, ev.Client, ev.Via, ev.NASAddress = "MikroTik", "core", via, netip.MustParseAddr(address)
			return ev
		}
		on := event(subscriber.EventAccountingOn, "", noAddr, time.Hour)
		record(t, db,
			at(start("a", addr, 0), "p1", "192.0.2.1"), at(start("b", next, 0), "p2", "192.0.2.2"),
			at(on, "p1", "192.0.2.1"), at(on, "p2", "192.0.2.2"))
		if err := db.sweepAll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if online(t, db, addr) != "a" || online(t, db, next) != "b" {
			t.Error("a restart of one of two NASes with one name ended sessions")
		}
		if n := countOf(seen.seen, subscriber.NASConflict); n != 2 {
			t.Errorf("%d restarts were counted, want 2", n)
		}
		if signs.times["p1"] != 1 || signs.times["p2"] != 1 {
			t.Errorf("counted by client: %v", signs.times)
		}
		if got := log.with("several NASes have one name; their restarts are ignored, see nas_identity of the client"); len(got) != 1 {
			t.Errorf("the log has %d lines, want 1", len(got))
		}

		// A NAS of that name in another realm has no conflict.
		alone := at(start("c", netip.MustParseAddr("100.64.0.3"), 0), "bng", "192.0.2.3")
		alone.Client = "bng"
		restart := at(on, "bng", "192.0.2.3")
		restart.Client = "bng"
		record(t, db, alone)
		record(t, db, restart)
		if err := db.sweepAll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := online(t, db, alone.Inside); got != "" {
			t.Errorf("%s is online after the restart of its NAS", got)
		}
	})
}

func countOf(seen []subscriber.Verdict, v subscriber.Verdict) (n int) {
	for _, s := range seen {
		if s == v {
			n++
		}
	}
	return n
}

// TestNoRecord_ACCT10: Recorder returns ErrNoRecord for events that write nothing, and only
// for these.
func TestNoRecord_ACCT10(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		r := Recorder{DB: newDB(t, client)}
		service := stop("s", addr, time.Minute)
		service.Service = true
		on := event(subscriber.EventAccountingOn, "", noAddr, time.Hour)
		var got []bool
		for _, ev := range []subscriber.Event{
			start("a", addr, 0), interim("a", addr, time.Minute), service, stop("a", addr, 2*time.Minute),
			interim("a", addr, 3*time.Minute), stop("unknown", foreign, 0), on, on,
		} {
			err := r.Record(t.Context(), []subscriber.Event{ev})[0]
			if err != nil && err != subscriber.ErrNoRecord {
				t.Fatal(err)
			}
			got = append(got, err == nil)
		}
		if want := []bool{true, true, false, true, false, true, true, false}; !slices.Equal(got, want) {
			t.Errorf("recorded %v, want %v", got, want)
		}
	})
}

// TestClass_ACCT23: Class is stored exactly, by every script, and is in the feed; several
// values keep their order. Sessions with and without Class share a batch.
func TestClass_ACCT23(t *testing.T) {
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		classes := []string{"gold", "", "-", "100%41 ", string(all[:253]), string(all[3:]), "\x00", "\xff\xfe"}
		var events []subscriber.Event
		for i, class := range classes {
			ev := start(string(rune('a'+i)), netip.AddrFrom4([4]byte{100, 64, 0, byte(1 + i)}), 0)
			if ev.Class = class; i == 5 {
				ev.MoreClasses = []string{"second", "\x00 \xff", "-"}
			}
			events = append(events, ev)
		}
		record(t, db, events...)
		check := func(when string) {
			t.Helper()
			for _, ev := range events {
				r, err := newDB(t, client).Get(t.Context(), key(ev.Inside))
				if err != nil || r.Class != ev.Class || !slices.Equal(r.MoreClasses, ev.MoreClasses) {
					t.Errorf("%s: %v has %q and %q, %v", when, ev.Inside, r.Class, r.MoreClasses, err)
				}
				if raw := client.HGet(t.Context(), codec.RecordKey("default", ev.Inside), "class").Val(); raw != ev.Class {
					t.Errorf("%s: the field of %v is %q", when, ev.Inside, raw)
				}
			}
		}
		check("after Starts")
		for _, c := range changes(t, db, "default") {
			if i := int(c.Record.Inside.As4()[3]) - 1; c.Record.Class != classes[i] || !slices.Equal(c.Record.MoreClasses, events[i].MoreClasses) {
				t.Errorf("the feed tells %q and %q of %v", c.Record.Class, c.Record.MoreClasses, c.Record.Inside)
			}
		}
		for i := range events {
			events[i].Kind, events[i].At = subscriber.EventInterim, t0.Add(time.Minute)
		}
		events[0].Class, events[5].MoreClasses = "silver", nil
		record(t, db, events...)
		check("after Interims")
		quiet := interim("a", events[0].Inside, 2*time.Minute) // has no Class
		record(t, db, quiet)
		check("after an Interim without Class")
	})
}

// TestClassTakesTheShortWay: an unchanged Class does not need the general script, which
// would halve the rate of a BNG that sends Class in every packet.
func TestClassTakesTheShortWay(t *testing.T) {
	db := newDB(t, redistest.Start(t))
	classy := func(ev subscriber.Event) subscriber.Event {
		ev.Class = "\x00gold"
		return ev
	}
	for _, ev := range []subscriber.Event{
		classy(start("a", addr, 0)), classy(interim("a", addr, time.Minute)), classy(stop("a", addr, time.Hour)),
	} {
		record(t, db, ev)
	}
	entries, err := db.client.XRange(t.Context(), codec.FeedKey("default"), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var kinds []any
	for i := range entries {
		kinds = append(kinds, entries[i].Values["kind"])
	}
	if want := []any{"began", "refreshed", "stopped"}; !slices.Equal(kinds, want) {
		t.Errorf("the feed has %v, want %v", kinds, want)
	}
}

// TestStartKnowsReporters_SES16: after a start of the daemon, a client that first reports a
// session under another client's NAS name does not make that client's restarts be ignored.
func TestStartKnowsReporters_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		record(t, newDB(t, client), start("a", addr, 0))
		db := newDB(t, client)
		if err := db.Records(t.Context(), "default", func([]subscriber.Record) error { return nil }); err != nil {
			t.Fatal(err)
		}
		other := start("b", next, time.Second)
		other.Client, other.Via = "other", "other"
		record(t, db, other)
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Hour))
		if err := db.sweepAll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := online(t, db, addr); got != "" {
			t.Errorf("%q is online after the restart of its NAS", got)
		}
		if got := online(t, db, next); got != "b" {
			t.Errorf("%q is online at the address of another client's session", got)
		}
	})
}
