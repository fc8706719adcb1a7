package subscriberdb

import (
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestPoisonedGroupIsTold: if the feed or the hash of online addresses has another type,
// every transaction of the group fails; the probe reports that, with the remedy.
func TestPoisonedGroupIsTold(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t)
	db := newDB(t, client)
	for _, key := range []string{codec.FeedKey("default"), codec.OnlineKey("default")} {
		if err := client.Set(t.Context(), key, "garbage", 0).Err(); err != nil {
			t.Fatal(err)
		}
		probing(t, db, "key "+key+" is of another type, as somebody made it: delete it")
		if err := client.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
		probing(t, db, "")
		record(t, db, event(subscriber.EventStart, "a"+key, addr, time.Second), event(subscriber.EventStop, "a"+key, addr, 2*time.Second))
	}
}

// TestNoEndingIsLost_DEL01: while the feed accepts no entry, a Stop, a NAS restart and the
// end of a record that another program removed are not acknowledged and change nothing;
// they are carried out later.
func TestNoEndingIsLost_DEL01(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t)
	db := newDB(t, client)
	if err := db.SetMarker(t.Context(), "default", Marker{}); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string][]any{
		"of another type": {"SET", codec.FeedKey("default"), "garbage"},
		"exhausted":       {"XADD", codec.FeedKey("default"), "18446744073709551615-18446744073709551615", "x", "y"},
	} {
		t.Run(name, func(t *testing.T) {
			client.Del(t.Context(), codec.FeedKey("default"))
			id := "of a feed " + name
			record(t, db, start(id, addr, 0), start("raw"+id, next, 0))
			client.Del(t.Context(), codec.RecordKey("default", next))
			client.Del(t.Context(), codec.FeedKey("default"))
			if err := client.Do(t.Context(), spoil...).Err(); err != nil {
				t.Fatal(err)
			}
			stopping := stop(id, addr, time.Minute)
			if err := db.Record(t.Context(), []subscriber.Event{stopping})[0]; err == nil {
				t.Error("the Stop is answered")
			}
			if got := online(t, db, addr); got != id {
				t.Errorf("%q is online, want %q: the Stop ended it, and told nobody", got, id)
			}
			client.Del(t.Context(), codec.FeedKey("default"))
			if err := client.Do(t.Context(), spoil...).Err(); err != nil {
				t.Fatal(err)
			}
			if err := db.AnnounceDeleted(t.Context(), []subscriber.Key{key(next)}, subscriber.ReasonNone); err == nil {
				t.Error("the removal is told")
			}
			if n := client.HExists(t.Context(), codec.OnlineKey("default"), next.String()).Val(); !n {
				t.Error("what tells of the removal is gone")
			}
			client.Del(t.Context(), codec.FeedKey("default"))
			record(t, db, stopping)
			if err := db.AnnounceDeleted(t.Context(), []subscriber.Key{key(next)}, subscriber.ReasonNone); err != nil {
				t.Error(err)
			}
			if n := client.XLen(t.Context(), codec.FeedKey("default")).Val(); n != 2 {
				t.Errorf("%d entries tell of two ends", n)
			}
		})
	}
}
