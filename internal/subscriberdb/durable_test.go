package subscriberdb

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestNoAckWithoutRedis_ACCT10: while Redis is down every event gets an error; when it is
// up again, without its scripts, a retransmission is recorded, and one session exists.
func TestNoAckWithoutRedis_ACCT10(t *testing.T) {
	server := testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	db := newDB(t, redistest.Dial(t, server.URL+"?max_retries=-1"))
	record(t, db, start("a", addr, 0))
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for _, err := range db.Record(ctx, []subscriber.Event{start("b", next, 0), stop("a", addr, time.Hour)}) {
		if err == nil {
			t.Error("acknowledged without Redis")
		}
	}
	server.Start(t)
	answers(t, db)
	if got := online(t, db, addr); got != "a" {
		t.Errorf("after the restart %q holds the address", got)
	}
	record(t, db, start("b", next, 0), start("b", next, 0))
	if got := online(t, db, next); got != "b" {
		t.Errorf("after the retransmission %q holds the address", got)
	}
}

// TestRefused_ACCT10: an event is not acknowledged if Redis refuses writes.
func TestRefused_ACCT10(t *testing.T) {
	client := redistest.Start(t, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction")
	db := newDB(t, client)
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := db.Record(t.Context(), []subscriber.Event{start("a", addr, 0)})[0]; err == nil {
		t.Error("acknowledged by a full Redis")
	}
}

// TestReadable_SES18 shows the record in the form of redis-cli (SES-18: its TTL is the
// group's, and an Interim refreshes it).
func TestReadable_SES18(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		ev := start("a", addr, 0)
		ev.CallingStationID, ev.NASAddress = "00:11", netip.MustParseAddr("192.0.2.7")
		record(t, db, ev)
		name := "sessiond:{default}:sub:100.64.0.1"
		got := client.HGetAll(t.Context(), name).Val()
		for field, want := range map[string]string{
			"user_name": "user-a", "nas": "nas1", "client": "bng1", "acct_session_id": "a",
			"calling_station_id": "00:11", "nas_address": "192.0.2.7", "started_at": "2026-03-01T10:00:00Z",
		} {
			if got[field] != want {
				t.Errorf("%s is %q, want %q", field, got[field], want)
			}
		}
		if got["version"] != changes(t, db, "default")[0].ID.String() {
			t.Errorf("version %q is not the feed entry's", got["version"])
		}
		client.PExpire(t.Context(), name, time.Second)
		record(t, db, interim("a", addr, time.Minute))
		if ttl := client.PTTL(t.Context(), name).Val(); ttl < testTTL-time.Minute || ttl > testTTL {
			t.Errorf("ttl %v after an Interim", ttl)
		}
	})
}

// TestBinarySafe_ACCT23: octets from a NAS are read back exactly, from the hash, the feed,
// and after an announcement, and no key is that of another session.
func TestBinarySafe_ACCT23(t *testing.T) {
	wild := []string{"\x00", "a/b", "a%2Fb", "}{", "\xff\xfe", "x y", "]\"'\r\n", "-", string(make([]byte, 253)), "é", "*?["}
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		setMarker(t, db, "default")
		for i, w := range wild {
			inside := netip.AddrFrom4([4]byte{100, 64, 1, byte(i)})
			id := subscriber.SessionID{Client: w, NAS: w, AcctSessionID: w}
			ev := subscriber.Event{Kind: subscriber.EventStart, SessionID: id, UserName: w, CallingStationID: w, Inside: inside, At: t0}
			record(t, db, ev)
			checkWild(t, db, ev)
			if err := client.Del(t.Context(), codec.RecordKey("default", inside)).Err(); err != nil {
				t.Fatal(err)
			}
			if err := db.AnnounceDeleted(t.Context(), []subscriber.Key{key(inside)}, subscriber.ReasonRemovedInDatabase); err != nil {
				t.Fatal(err)
			}
			list := changes(t, db, "default")
			if c := list[len(list)-1]; c.Record.SessionID != id || c.Record.UserName != w || c.Kind != subscriber.Deleted {
				t.Errorf("buried %q as %+v", w, c)
			}
		}
	})
}

func checkWild(t *testing.T, db *DB, ev subscriber.Event) {
	t.Helper()
	r, err := db.Get(t.Context(), key(ev.Inside))
	if err != nil {
		t.Fatal(err)
	}
	list := changes(t, db, "default")
	for where, got := range map[string]subscriber.Record{"hash": r, "feed": list[len(list)-1].Record} {
		if got.SessionID != ev.SessionID || got.UserName != ev.UserName || got.CallingStationID != ev.CallingStationID {
			t.Errorf("%q comes back from the %s as %+v", ev.UserName, where, got)
		}
	}
}

func setMarker(t testing.TB, db *DB, group string) {
	t.Helper()
	if err := db.SetMarker(t.Context(), group, Marker{Epoch: "e1", CreatedAt: t0, Node: "test"}); err != nil {
		t.Fatal(err)
	}
}

func TestMarker_I6(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		if _, ok, err := db.Marker(t.Context(), "default"); ok || err != nil {
			t.Fatalf("marker in an empty Redis: %v, %v", ok, err)
		}
		setMarker(t, db, "default")
		if err := db.SetMarker(t.Context(), "default", Marker{Epoch: "e2"}); err != nil {
			t.Fatal(err)
		}
		if m, ok, err := db.Marker(t.Context(), "default"); m.Epoch != "e1" || !ok || err != nil {
			t.Errorf("marker %+v, %v, %v", m, ok, err)
		}
	})
}

// TestSuspect_I6: after FLUSHALL no end is announced; accounting is still recorded, the
// feed reports its gap, and Restore writes the records back.
func TestSuspect_I6(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		setMarker(t, db, "default")
		record(t, db, start("a", addr, 0), start("b", next, 0))
		lost, err := db.Get(t.Context(), key(addr))
		if err != nil {
			t.Fatal(err)
		}
		tail, _ := db.Tail(t.Context(), "default")
		client.FlushAll(t.Context())

		if err := db.AnnounceDeleted(t.Context(), []subscriber.Key{key(addr)}, subscriber.ReasonRemovedInDatabase); !errors.Is(err, ErrSuspect) {
			t.Errorf("Bury: %v", err)
		}
		if _, _, err := db.Feed(t.Context(), "default", tail, 10, time.Millisecond, nil); !errors.Is(err, ErrFeedGap) {
			t.Errorf("Feed: %v", err)
		}
		record(t, db, interim("b", next, time.Hour), stop("c", addr, time.Hour))
		if err := db.Restore(t.Context(), []subscriber.Record{lost}); err != nil {
			t.Fatal(err)
		}
		r, err := db.Get(t.Context(), key(addr))
		if err != nil || !r.Unconfirmed || r.AcctSessionID != "a" || r.ExpiresAt.IsZero() {
			t.Errorf("restored %+v, %v", r, err)
		}
		record(t, db, interim("a", addr, time.Hour))
		if r, _ := db.Get(t.Context(), key(addr)); r.Unconfirmed {
			t.Error("an Interim does not confirm the record")
		}
	})
}

// TestRestoreYields: Restore skips a session that ended meanwhile, and one whose address is
// taken.
func TestRestoreYields(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		lost := subscriber.Record{Key: key(addr), SessionID: start("a", addr, 0).SessionID, UserName: "user-a", StartedAt: t0}
		record(t, db, stop("a", addr, time.Hour), start("b", next, 0))
		taken := lost
		taken.Inside, taken.AcctSessionID = next, "c"
		if err := db.Restore(t.Context(), []subscriber.Record{lost, taken}); err != nil {
			t.Fatal(err)
		}
		if got := online(t, db, addr); got != "" {
			t.Errorf("%s came back after its Stop", got)
		}
		if got := online(t, db, next); got != "b" {
			t.Errorf("%s displaced b", got)
		}
		taken.StartedAt = t0.Add(time.Minute) // b comes from an old backup
		if err := db.Restore(t.Context(), []subscriber.Record{taken}); err != nil {
			t.Fatal(err)
		}
		if got := online(t, db, next); got != "c" {
			t.Errorf("%s stands in the way of a later session", got)
		}
	})
}

// TestRestoreBesideTwin_I6: a session is restored although another one, of another user at
// another address, had an event under the same identifier before; both go on separately.
func TestRestoreBesideTwin_I6(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		of := func(kind subscriber.EventKind, user string, inside netip.Addr, after time.Duration) subscriber.Event {
			ev := event(kind, "one", inside, after)
			ev.UserName = user
			return ev
		}
		record(t, newDB(t, client), of(subscriber.EventStart, "alice", addr, 0))
		lost := known(t, newDB(t, client), addr)
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		db := newDB(t, client)
		record(t, db, of(subscriber.EventStart, "bob", next, time.Minute))
		for range 2 {
			if err := db.Restore(t.Context(), []subscriber.Record{lost}); err != nil {
				t.Fatal(err)
			}
		}
		users := func() string { return known(t, db, addr).UserName + " " + known(t, db, next).UserName }
		if got := users(); got != "alice bob" {
			t.Fatalf("online: %q", got)
		}
		record(t, db, of(subscriber.EventInterim, "alice", addr, 2*time.Minute), of(subscriber.EventInterim, "bob", next, 2*time.Minute))
		if got := users(); got != "alice bob" {
			t.Errorf("after Interims: %q", got)
		}
		record(t, db, of(subscriber.EventStop, "bob", next, 3*time.Minute))
		if online(t, db, addr) == "" || online(t, db, next) != "" {
			t.Errorf("after bob's Stop: %q and %q", online(t, db, addr), online(t, db, next))
		}
		record(t, db, of(subscriber.EventStop, "alice", addr, 4*time.Minute))
		if got := online(t, db, addr); got != "" {
			t.Errorf("after alice's Stop: %q", got)
		}
	})
}
