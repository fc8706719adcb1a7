package subscriberdb

import (
	"net/netip"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// through returns the event as it arrives through a client without delay.
func through(client string, ev subscriber.Event) subscriber.Event {
	ev.Client, ev.Via = client, client
	ev.Arrival, ev.At = ev.At, time.Time{}
	return ev
}

// lasting returns the event with an Acct-Session-Time.
func lasting(ev subscriber.Event, d time.Duration) subscriber.Event {
	ev.SessionTime = d
	return ev
}

// TestSharedIdentifier_SES01: two sessions with one Acct-Session-Id are distinguished by
// their addresses too, by a daemon with and without a cache.
func TestSharedIdentifier_SES01(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		bob := func(ev subscriber.Event) subscriber.Event {
			ev.UserName, ev.Inside = "bob", next
			return ev
		}
		db := newDB(t, client)
		record(t, db, start("a", addr, 0), bob(start("a", next, 0)))
		for i := range 3 {
			after := time.Duration(i+1) * time.Minute
			record(t, db, lasting(interim("a", addr, after), after), lasting(bob(interim("a", next, after)), after))
			if known(t, db, addr).UserName != "user-a" || known(t, db, next).UserName != "bob" {
				t.Fatalf("round %d: %+v and %+v", i, known(t, db, addr), known(t, db, next))
			}
			db = newDB(t, client)
		}
		record(t, db, lasting(bob(stop("a", next, time.Hour)), time.Hour), lasting(bob(interim("a", next, 50*time.Minute)), 50*time.Minute))
		if online(t, db, next) != "" || online(t, db, addr) != "a" {
			t.Errorf("bob's Stop left %q and %q", online(t, db, addr), online(t, db, next))
		}
	})
}

// TestSharedIdentifierAcrossGroups_SES01: of three sessions with one Acct-Session-Id, one
// is in another group, and one at an address of no group. Events of one do not affect the
// others.
func TestSharedIdentifierAcrossGroups_SES01(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		of := func(kind subscriber.EventKind, user string, inside netip.Addr, after time.Duration) subscriber.Event {
			ev := lasting(event(kind, "a", inside, after), after)
			ev.UserName = user
			return ev
		}
		db := newDB(t, client)
		record(t, db, of(subscriber.EventStart, "alice", addr, 0), of(subscriber.EventStart, "bob", away, 0), of(subscriber.EventStart, "carol", foreign, 0))
		for i := range 3 {
			after := time.Duration(i+1) * 10 * time.Minute
			for user, inside := range map[string]netip.Addr{"alice": addr, "bob": away, "carol": foreign} {
				record(t, db, of(subscriber.EventInterim, user, inside, after))
			}
			if known(t, db, addr).UserName != "alice" || known(t, db, away).UserName != "bob" {
				t.Fatalf("round %d: %+v and %+v", i, known(t, db, addr), known(t, db, away))
			}
			db = newDB(t, client)
		}
		record(t, db, of(subscriber.EventStop, "carol", foreign, time.Hour), of(subscriber.EventStop, "bob", away, time.Hour))
		if online(t, db, addr) != "a" || online(t, db, away) != "" {
			t.Errorf("online %q and %q, want alice only", online(t, db, addr), online(t, db, away))
		}
		for _, c := range append(changes(t, db, "default"), changes(t, db, "other")...) {
			if c.Kind == subscriber.Deleted && (c.Reason != subscriber.ReasonStop || c.Record.UserName != "bob") {
				t.Errorf("ended: %+v", c)
			}
		}
	})
}

// TestTwoClients_SES02_SES16: a NAS is reported through two proxies that are not configured
// as one realm. A session has one record, and a restart through either proxy ends the
// sessions of both, also after a start of the daemon.
func TestTwoClients_SES02_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		atTime := func(o *Options) { o.Now = func() time.Time { return t0.Add(time.Hour) } }
		db := newDB(t, client, atTime)
		record(t, db, through("bng1", start("a", addr, 0)), through("bng2", start("b", next, 0)))
		record(t, db, through("bng2", lasting(interim("a", addr, time.Minute), time.Minute)))
		if r := known(t, db, addr); r.Client != "bng1" || !r.UpdatedAt.Equal(t0.Add(time.Minute)) {
			t.Fatalf("record %+v", r)
		}
		if err := db.FlushNASes(t.Context()); err != nil {
			t.Fatal(err)
		}
		db = newDB(t, client, atTime)
		if err := db.FlushNASes(t.Context()); err != nil {
			t.Fatal(err)
		}
		record(t, db, through("bng2", event(subscriber.EventAccountingOn, "", noAddr, time.Hour)))
		sweep(t, db)
		if online(t, db, addr) != "" || online(t, db, next) != "" {
			t.Errorf("after the restart %q and %q are online", online(t, db, addr), online(t, db, next))
		}
	})
}

// TestAlikeThroughAnotherRealm_SES16: a client that sends events with all attributes of
// another client's session ends nothing of it if a realm says whose the NASes are, or
// realms must not be inferred: neither the session nor, by a restart, all others; also if
// the two NASes were taken for one before.
func TestAlikeThroughAnotherRealm_SES16(t *testing.T) {
	const noneInferred = "nobody has one, and none is inferred"
	for name, clients := range map[string]Realms{
		"the session's client has one": {"p1": "core", "p2": "core", "bng2": ""},
		"the other client has one":     {"core": "", "bng2": "edge"},
		"both have":                    {"p1": "core", "bng2": "edge"},
		noneInferred:                   {"core": "", "bng2": ""},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
				evil := "bng2"
				if realm := clients[evil]; realm != "" {
					evil = realm
				}
				db := newDB(t, client, func(o *Options) {
					o.NamedRealms = name == noneInferred
					o.Now = func() time.Time { return t0.Add(2 * time.Hour) }
				})
				db.nases.Unite(NASName{Client: evil, Name: "nas1"}, NASName{Client: "core", Name: "nas1"}) // found before the realms were configured
				db.SetClients(clients)
				record(t, db, through("core", start("a", addr, 0)), through("core", start("b", next, 0)))
				for i, kind := range []subscriber.EventKind{subscriber.EventStart, subscriber.EventInterim, subscriber.EventStop} {
					record(t, db, through(evil, event(kind, "a", addr, time.Duration(i+1)*time.Minute)))
				}
				record(t, db, through(evil, event(subscriber.EventAccountingOn, "", noAddr, time.Hour)))
				sweep(t, db)
				for _, a := range []netip.Addr{addr, next} {
					if r := known(t, db, a); r.Client != "core" || !r.UpdatedAt.Equal(t0) {
						t.Errorf("the record at %v is %+v", a, r)
					}
				}
				record(t, db, through("core", stop("a", addr, 2*time.Hour)))
				if online(t, db, addr) != "" {
					t.Error("the session's own client did not end it")
				}
			})
		})
	}
}

// TestConfirmedRestart_SES15: if restarts have to be confirmed the sessions go on, marked,
// for the life of a record; an Interim clears the mark.
func TestConfirmedRestart_SES15(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		on := event(subscriber.EventAccountingOn, "", noAddr, time.Hour)
		on.Restarts = subscriber.RestartsConfirmed
		record(t, db, start("a", addr, 0), start("b", next, 0), on)
		sweep(t, db)
		if n, all := heldCount(t, db, subscriber.ReasonNASRestart); n != 2 || all != 2 {
			t.Fatalf("%d of %d records are marked, want 2 of 2", n, all)
		}
		left := client.PTTL(t.Context(), codec.RecordKey("default", addr)).Val()
		if left <= 0 || left > testTTL {
			t.Errorf("a marked record lives for %v, want at most %v", left, testTTL)
		}
		record(t, db, lasting(interim("a", addr, 2*time.Hour), 2*time.Hour))
		if r := known(t, db, addr); r.RemovalHeld != subscriber.ReasonNone {
			t.Errorf("after an Interim: %+v", r)
		}
		ended, err := db.ConfirmRemovals(t.Context(), []subscriber.Key{key(addr), key(next)})
		if err != nil || len(ended) != 1 || ended[0].Inside != next {
			t.Errorf("confirming ended %+v, %v", ended, err)
		}
	})
}

// TestRestartThatWasNone_SES15: an Interim brings back a session that an Accounting-On
// ended; an Interim from before the restart does not, and none brings back a stopped
// session.
func TestRestartThatWasNone_SES15(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, start("a", addr, 0), start("b", next, 0), event(subscriber.EventAccountingOn, "", noAddr, time.Hour))
		sweep(t, db)
		record(t, db, interim("a", addr, 59*time.Minute))
		if online(t, db, addr) != "" {
			t.Error("an Interim from before the restart brought its session back")
		}
		record(t, db, lasting(interim("a", addr, 2*time.Hour), 2*time.Hour), stop("b", next, 2*time.Hour), interim("b", next, 3*time.Hour))
		sweep(t, db)
		if r := known(t, db, addr); r.AcctSessionID != "a" || !r.StartedAt.Equal(t0) {
			t.Errorf("record %+v", r)
		}
		if got := online(t, db, next); got != "" {
			t.Errorf("%q is online after its Stop", got)
		}
	})
}

// TestRestartSentAgain_SES15: an Accounting-On that is repeated unchanged, after its NAS
// has set its clock and sessions have begun, is no new restart, also after a start of the
// daemon.
func TestRestartSentAgain_SES15(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		for _, policy := range []subscriber.RestartPolicy{subscriber.RestartsBelieved, subscriber.RestartsConfirmed} {
			client.FlushAll(t.Context())
			on := through("bng1", event(subscriber.EventAccountingOn, "", noAddr, 0))
			on.Restarts, on.Delay, on.Stamp = policy, -1, t0.Add(3*time.Minute)
			begun := through("bng1", start("a", addr, 5*time.Second))
			begun.Delay = -1
			record(t, newDB(t, client), on, begun)
			on.Arrival = t0.Add(20 * time.Second)
			db := newDB(t, client)
			record(t, db, on)
			sweep(t, db)
			if r := known(t, db, addr); r.RemovalHeld != subscriber.ReasonNone {
				t.Errorf("policy %d: record %+v", policy, r)
			}
			on.Stamp, on.Arrival = t0.Add(time.Hour), t0.Add(time.Hour)
			record(t, db, on)
			sweep(t, db)
			if r, err := db.Get(t.Context(), key(addr)); err == nil && r.RemovalHeld != subscriber.ReasonNASRestart {
				t.Errorf("policy %d: after another restart %+v", policy, r)
			}
		}
	})
}

// TestTraceOfUsedIdentifier: after a restart of a NAS every session may reuse an earlier
// session's identifier; such a session is cached like any other.
func TestTraceOfUsedIdentifier(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, start("a", addr, 0), start("a", addr, time.Hour))
		line := client.Get(t.Context(), codec.SessionKey("default", start("a", addr, 0).SessionID)).Val()
		if state, err := codec.ParseState(line); err != nil || !state.Before.Equal(t0) {
			t.Errorf("in the database %q", line)
		}
		sent := map[string]int{}
		client.AddHook(commandCounter{sent})
		record(t, db, lasting(interim("a", addr, 90*time.Minute), 30*time.Minute))
		if sent["hgetall"]+sent["get"] != 0 {
			t.Errorf("not in the cache: %v", sent)
		}
		record(t, db, lasting(interim("a", addr, 2*time.Hour), time.Hour), lasting(stop("a", addr, 30*time.Minute), 30*time.Minute))
		if got := online(t, db, addr); got != "a" {
			t.Error("the late Stop of the session before ended this one")
		}
	})
}
