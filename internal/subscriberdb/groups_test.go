package subscriberdb

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestAddressOfAnotherClient_SES16: the configured clients, and the data about the holder,
// decide whether an event of another client gets the address of a session. If it does not,
// nothing in Redis changes but counters.
func TestAddressOfAnotherClient_SES16(t *testing.T) {
	for name, tt := range map[string]struct {
		clients Realms
		before  func(t *testing.T, db *DB) // after the Start of the holder
		event   func(ev *subscriber.Event)
		want    subscriber.Verdict
	}{
		"no clients are known":   {want: subscriber.ForeignHolder},
		"both are configured":    {clients: Realms{"bng1": "", "bng2": ""}, want: subscriber.ForeignHolder},
		"of one realm since":     {clients: Realms{"bng1": "core", "bng2": "core"}, event: func(ev *subscriber.Event) { ev.Client = "core" }, want: subscriber.TookOver},
		"of two realms":          {clients: Realms{"bng1": "core", "bng2": "edge"}, event: func(ev *subscriber.Event) { ev.Client = "edge" }, want: subscriber.ForeignHolder},
		"the holder's is gone":   {clients: Realms{"bng2": ""}, want: subscriber.TookOver},
		"the event's is gone":    {clients: Realms{"bng1": ""}, want: subscriber.ForeignHolder},
		"a record without a one": {before: edited("client", ""), want: subscriber.TookOver},
		"a removal that is held": {before: edited("removal_held", "EXPIRED"), want: subscriber.TookOver},
		"a record by hand": {before: func(t *testing.T, db *DB) {
			if _, err := db.Delete(t.Context(), []subscriber.Key{key(addr)}, subscriber.ReasonAdmin, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Put(t.Context(), subscriber.Record{Key: key(addr), UserName: "carol", StartedAt: t0}); err != nil {
				t.Fatal(err)
			}
		}, want: subscriber.TookOver},
		"its NAS has restarted, and is not swept": {before: func(t *testing.T, db *DB) {
			record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Minute))
		}, want: subscriber.TookOver},
		"another NAS has restarted": {before: func(t *testing.T, db *DB) {
			on := event(subscriber.EventAccountingOn, "", noAddr, time.Minute)
			on.NAS = "nas9"
			record(t, db, on)
		}, want: subscriber.ForeignHolder},
		"renamed, and heard of since": {clients: Realms{"renamed": "", "bng2": ""}, before: func(t *testing.T, db *DB) {
			record(t, db, through("renamed", interim("a", addr, time.Minute)))
		}, want: subscriber.ForeignHolder},
		"the event's client speaks for the holder's NAS too": {before: func(t *testing.T, db *DB) {
			record(t, db, through("bng2", interim("a", addr, time.Minute)))
		}, want: subscriber.TookOver},
		"it speaks for another one only": {before: func(t *testing.T, db *DB) {
			other := start("c", next, 0)
			other.NAS = "nas9"
			again := through("bng2", interim("c", next, time.Minute))
			again.NAS = "nas9"
			record(t, db, other, again)
		}, event: func(ev *subscriber.Event) { ev.NAS = "nas9" }, want: subscriber.ForeignHolder},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
				var seen verdicts
				db := newDB(t, client, func(o *Options) { o.OnVerdict = seen.observe })
				record(t, db, start("a", addr, 0))
				db = newDB(t, client, func(o *Options) { o.OnVerdict, o.Clients = seen.observe, tt.clients })
				if tt.before != nil {
					tt.before(t, db)
				}
				stood := fieldsOf(t, db)
				for _, kind := range []subscriber.EventKind{subscriber.EventInterim, subscriber.EventStart} {
					ev := through("bng2", event(kind, "x", addr, 3*time.Minute))
					ev.UserName = "mallory"
					if tt.event != nil {
						tt.event(&ev)
					}
					record(t, db, ev)
					if got := latest(&seen); got != tt.want {
						t.Fatalf("%v, want %v", got, tt.want)
					}
					if tt.want == subscriber.TookOver {
						return
					}
				}
				if now := fieldsOf(t, db); now != stood {
					t.Errorf("the record is %q, was %q", now, stood)
				}
				record(t, db, interim("a", addr, 4*time.Minute))
				if got := latest(&seen); got != subscriber.Refreshed {
					t.Errorf("an Interim of the holder: %v", got)
				}
			})
		})
	}
}

// latest returns the verdict on the latest event, if that is counted last.
func latest(v *verdicts) subscriber.Verdict {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen[len(v.seen)-1]
}

// edited returns a function that writes a field of the holder's record as an operator
// would.
func edited(name, value string) func(t *testing.T, db *DB) {
	return func(t *testing.T, db *DB) {
		t.Helper()
		if err := db.client.HSet(t.Context(), codec.RecordKey("default", addr), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// fieldsOf returns the version of the holder's record and the state of its session.
func fieldsOf(t *testing.T, db *DB) string {
	t.Helper()
	state, _ := db.client.Get(t.Context(), codec.SessionKey("default", start("a", addr, 0).SessionID)).Result()
	return known(t, db, addr).Version + " " + state
}

// TestBoundClientSpeaksForNobody_SES16: a client whose NAS is another name of another
// client's NAS ends no session of that client outside of its own bounds; an address of no
// group is not out of bounds.
func TestBoundClientSpeaksForNobody_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		var seen verdicts
		db := newDB(t, client, func(o *Options) { o.OnVerdict = seen.observe })
		record(t, db, start("a", addr, 0), through("bng2", interim("a", addr, time.Minute)))
		end := through("bng2", stop("a", addr, 2*time.Minute))
		end.ForeignInside = true
		record(t, db, end)
		if got := latest(&seen); got != subscriber.ForeignAddress || online(t, db, addr) != "a" {
			t.Errorf("its Stop: %v, online is %q", got, online(t, db, addr))
		}
		public := through("bng2", start("p", foreign, 0))
		public.ForeignInside = true
		record(t, db, public)
		if got := latest(&seen); got == subscriber.ForeignAddress {
			t.Error("an address of no group is refused")
		}
	})
}

// TestTwoNamesOfANAS_SES16: a NAS that is reported through two clients may end the sessions
// that it reported through either.
func TestTwoNamesOfANAS_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, through("bng2", start("b", next, 0)))
		record(t, db, start("a", addr, time.Second), through("bng2", interim("a", addr, time.Minute)))
		newcomer := start("c", next, 2*time.Minute)
		newcomer.UserName = "carol"
		record(t, db, newcomer)
		if got := online(t, db, next); got != "c" {
			t.Errorf("%q is online at the address that its NAS gave to c", got)
		}
	})
}
