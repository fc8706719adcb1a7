package subscriberdb

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestUnread: Unread returns the oldest entry behind a position in the feed, and its age by
// Redis's own clock, which may differ from this machine's.
func TestUnread(t *testing.T) {
	t.Parallel()
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		ctx := t.Context()
		if entry, age, err := db.Unread(ctx, "default", beginning); entry != "" || age != 0 || err != nil {
			t.Errorf("of an empty feed %q, %v, %v", entry, age, err)
		}
		started := client.Time(ctx).Val()
		record(t, db, event(subscriber.EventStart, "s1", addr, 0))
		first, err := db.Tail(ctx, "default")
		if err != nil {
			t.Fatal(err)
		}
		record(t, db, event(subscriber.EventStop, "s1", addr, time.Minute))
		entry, age, err := db.Unread(ctx, "default", beginning)
		if most := client.Time(ctx).Val().Sub(started) + time.Millisecond; err != nil || entry != first || age < 0 || age > most {
			t.Errorf("from the beginning %q since %v, %v; want %q since at most %v", entry, age, err, first, most)
		}
		last, err := db.Tail(ctx, "default")
		if err != nil || last == first {
			t.Fatalf("the feed ends with %q, %v", last, err)
		}
		if entry, _, err := db.Unread(ctx, "default", first); entry != last || err != nil {
			t.Errorf("behind the first %q, %v; want %q", entry, err, last)
		}
		if entry, age, err := db.Unread(ctx, "default", last); entry != "" || age != 0 || err != nil {
			t.Errorf("behind the last %q, %v, %v", entry, age, err)
		}
	})
}
