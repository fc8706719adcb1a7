package subscriberdb

import (
	"maps"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestNASesInCluster: the keys of NASes, which belong to no group, are read and written in
// a Cluster too, and NASes that were silent for long are removed.
func TestNASesInCluster(t *testing.T) {
	client := startCluster(t)
	client.HSet(t.Context(), codec.NASesKey, "bng1/old", "heard=2020-01-01T00:00:00Z")
	db := newDB(t, client, at(t0))
	task(t, db.KeepNASes)
	testenv.Eventually(t, "the old one is gone", func() bool { return client.HLen(t.Context(), codec.NASesKey).Val() == 0 })
	record(t, db, through("bng1", event(subscriber.EventAccountingOn, "", noAddr, time.Hour)), through("bng1", interim("a", addr, 0)))
	list, err := db.NASes(t.Context())
	if err != nil || len(list) != 1 || list[0].Refused["outdated"] != 1 || !list[0].Restarted.Equal(t0.Add(time.Hour)) {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestRefusedOnce: an event that every group refuses is counted once.
func TestRefusedOnce(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		told := map[string]int{}
		db := newDB(t, client, at(t0), func(o *Options) {
			o.Refused = func(client string, v subscriber.Verdict) { told[client+" "+v.String()]++ }
		})
		record(t, db, through("bng1", event(subscriber.EventAccountingOn, "", noAddr, time.Hour)))
		early := through("bng1", interim("a", addr, 0))
		early.Via = "proxy"
		record(t, db, early)
		if want := map[string]int{"proxy outdated": 1}; !maps.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		list, err := db.NASes(t.Context())
		if err != nil || len(list) != 1 || !maps.Equal(list[0].Refused, map[string]uint64{"outdated": 1}) {
			t.Errorf("counted %+v, %v", list, err)
		}
	})
}

func at(now time.Time) func(*Options) {
	return func(o *Options) { o.Now = func() time.Time { return now } }
}
