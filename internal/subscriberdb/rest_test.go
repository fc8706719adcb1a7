package subscriberdb

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

func TestPut(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		ctx := t.Context()
		byHand := subscriber.Record{Key: key(addr), UserName: "user-a"}
		put, err := db.Put(ctx, byHand)
		if err != nil || put.Version == "" || put.StartedAt.IsZero() || !put.ExpiresAt.IsZero() {
			t.Fatalf("put %+v, %v", put, err)
		}
		if ttl := client.TTL(ctx, codec.RecordKey("default", addr)).Val(); ttl >= 0 {
			t.Errorf("a record by hand expires in %v", ttl)
		}
		record(t, db, event(subscriber.EventInterim, "a", addr, time.Since(t0)+time.Minute))
		want := []string{"created 100.64.0.1 ", "updated 100.64.0.1 a"}
		checkStory(t, db, "default", want)
		if _, err := db.Put(ctx, subscriber.Record{Key: key(addr), UserName: "bob", ExpiresAt: db.now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		checkStory(t, db, "default", append(want, "deleted 100.64.0.1 a SUPERSEDED", "created 100.64.0.1 "))
		if ttl := client.TTL(ctx, codec.RecordKey("default", addr)).Val(); ttl < 59*time.Minute {
			t.Errorf("expires in %v", ttl)
		}
		for _, k := range []subscriber.Key{{Group: "none", Inside: addr}, {Group: "default", Inside: away}, {Group: "default"}} {
			if _, err := db.Put(ctx, subscriber.Record{Key: k}); !errors.Is(err, ErrNoGroup) {
				t.Errorf("put at %v: %v", k, err)
			}
		}
	})
}

func TestFeed(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		ctx := t.Context()
		if list, last, err := db.Feed(ctx, "default", "0-0", 10, time.Millisecond, nil); len(list) != 0 || last != "0-0" || err != nil {
			t.Fatalf("of an empty feed: %v, %s, %v", list, last, err)
		}
		record(t, db, start("a", addr, 0))
		list, last, err := db.Feed(ctx, "default", "0-0", 10, time.Second, nil)
		if err != nil || len(list) != 1 || list[0].ID.String() != last {
			t.Fatalf("first: %v, %s, %v", list, last, err)
		}
		if left := time.Until(list[0].Record.ExpiresAt()); left < testTTL-time.Minute || left > testTTL+time.Minute {
			t.Errorf("record expires in %v", left)
		}
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, -time.Hour), stop("a", addr, time.Hour))
		list, last, err = db.Feed(ctx, "default", last, 10, 0, nil)
		if err != nil || len(list) != 1 || list[0].Kind != subscriber.Deleted {
			t.Fatalf("then: %+v, %v", list, err)
		}
		if tail, _ := db.Tail(ctx, "default"); tail != last {
			t.Errorf("tail %s, last %s", tail, last)
		}
		if _, _, err := db.Feed(ctx, "default", "99999999999999-0", 10, 0, nil); !errors.Is(err, ErrFeedGap) {
			t.Errorf("after a rollback: %v", err)
		}
	})
}

// TestFeedTellsCause: the feed has the terminate cause of a Stop from either script.
func TestFeedTellsCause(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		lost := func(id string, inside netip.Addr) subscriber.Event {
			ev := stop(id, inside, time.Hour)
			ev.TerminateCause = 2 // Lost Carrier
			return ev
		}
		record(t, db, start("a", addr, 0), start("b", next, 0), start("c", away, 0))
		record(t, db, lost("a", addr))
		db = newDB(t, client) // with an empty cache
		record(t, db, lost("b", noAddr), stop("c", away, time.Hour))
		causesOf(t, db, "default", time.Time{}, 0, 0, 2, 2) // the Starts too
		causesOf(t, db, "default", time.Now().Add(time.Hour))
		var causes []uint32
		for _, c := range append(changes(t, db, "default"), changes(t, db, "other")...) {
			if c.Kind == subscriber.Deleted {
				causes = append(causes, c.Cause)
			}
		}
		if want := []uint32{2, 2, 0}; !slices.Equal(causes, want) {
			t.Errorf("causes %v, want %v", causes, want)
		}
	})
}

// causesOf checks the terminate causes of the changes that Recent returns.
func causesOf(t *testing.T, db *DB, group string, since time.Time, want ...uint32) {
	t.Helper()
	recent, err := db.Recent(t.Context(), group, since)
	if err != nil {
		t.Fatal(err)
	}
	var causes []uint32
	for _, c := range recent {
		causes = append(causes, c.Cause)
	}
	if !slices.Equal(causes, want) {
		t.Errorf("causes since %v: %v, want %v", since, causes, want)
	}
}

// TestFeedGap: a reader that is too far behind gets ErrFeedGap, and no other reader does.
func TestFeedGap(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, func(o *Options) { o.FeedLength, o.FeedLimit = 200, 200 })
		record(t, db, start("a", addr, 0))
		first, _ := db.Tail(t.Context(), "default")
		for i := range 600 {
			record(t, db, interim("a", addr, time.Duration(i)*time.Second))
		}
		for _, after := range []string{first, "0-0"} {
			if _, _, err := db.Feed(t.Context(), "default", after, 10, 0, nil); !errors.Is(err, ErrFeedGap) {
				t.Errorf("after %s: %v", after, err)
			}
		}
		oldest := client.XRangeN(t.Context(), codec.FeedKey("default"), "-", "+", 1).Val()[0].ID
		if list, _, err := db.Feed(t.Context(), "default", oldest, 10, 0, nil); err != nil || len(list) != 10 {
			t.Errorf("from the oldest entry: %d changes, %v", len(list), err)
		}
	})
}

func TestRecords(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		want := map[netip.Addr]string{}
		var events []subscriber.Event
		for i := range 300 {
			inside := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
			want[inside] = fmt.Sprint(i)
			events = append(events, start(want[inside], inside, 0))
		}
		record(t, db, events...)
		record(t, db, start("away", away, 0))
		client.HSet(t.Context(), "sessiond:{default}:sub:not-an-address", "a", "b")
		client.Set(t.Context(), "sessiond:{default}:sub:100.64.99.1", "no hash", 0)
		compareOnline(t, db, want)
		broken := errors.New("enough")
		if err := db.Records(t.Context(), "default", func([]subscriber.Record) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("error of yield: %v", err)
		}
	})
}

// TestWrittenByHand: a record written with redis-cli HSET is read, and taken over like any
// other.
func TestWrittenByHand(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		client.HSet(t.Context(), codec.RecordKey("default", addr), "user_name", "bob")
		if r, err := db.Get(t.Context(), key(addr)); err != nil || r.UserName != "bob" {
			t.Fatalf("%+v, %v", r, err)
		}
		record(t, db, start("a", addr, 0))
		checkStory(t, db, "default", []string{"deleted 100.64.0.1  SUPERSEDED", "created 100.64.0.1 a"})
	})
}

func TestSettings(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		ctx := t.Context()
		err := errors.Join(
			db.InitSettings(ctx, map[string]string{"a": "1", "b": "2"}),
			db.SetSettings(ctx, map[string]string{"b": "3"}),
			db.InitSettings(ctx, map[string]string{"b": "4", "c": "5"}),
			db.SetSettings(ctx, nil),
		)
		got, readErr := db.Settings(ctx)
		if want := map[string]string{"a": "1", "b": "3", "c": "5"}; err != nil || readErr != nil || !maps.Equal(got, want) {
			t.Errorf("got %v, %v, %v", got, err, readErr)
		}
	})
}

func TestGroups(t *testing.T) {
	db := newDB(t, redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}))
	for a, want := range map[string]string{"100.64.0.1": "default", "::ffff:100.70.0.1": "other", "203.0.113.1": ""} {
		if got, _ := db.GroupOf(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s is of %q, want %q", a, got, want)
		}
	}
	for _, name := range []string{"", "_", "a b", "{x}", "a*"} {
		if err := db.SetGroups([]Group{{Name: name}}); err == nil {
			t.Errorf("group name %q accepted", name)
		}
	}
	if err := db.SetGroups([]Group{{Name: "x", Inside: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}); err != nil {
		t.Fatal(err)
	}
	if got, _ := db.GroupOf(netip.MustParseAddr("203.0.113.1")); got != "x" {
		t.Errorf("after SetGroups: %q", got)
	}
}
