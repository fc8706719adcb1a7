package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// sweeper returns SweepRestarts of a DB without followers of its feed.
func sweeper(db *DB) func(context.Context) error {
	return func(ctx context.Context) error { return db.SweepRestarts(ctx, nil) }
}

// task runs a task of the DB until the test ends, and waits for it.
func task(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("task ended with %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("task does not end with its context")
		}
	})
}

// undertaker announces the removals that WatchRemovals finds.
func undertaker(t *testing.T, db *DB) {
	t.Helper()
	task(t, func(ctx context.Context) error {
		return db.WatchRemovals(ctx, everyGroup, func(k subscriber.Key, why subscriber.Reason) {
			if err := db.AnnounceDeleted(ctx, []subscriber.Key{k}, why); err != nil && ctx.Err() == nil {
				t.Errorf("bury: %v", err)
			}
		})
	})
}

// TestVanished_DEL08_DEL09: a record that is removed with DEL, UNLINK, RENAME or by its TTL
// gets exactly one Deleted change, also with two daemons watching.
func TestVanished_DEL08_DEL09(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		setMarker(t, db, "default")
		var names []string
		for i := range 5 {
			inside := netip.AddrFrom4([4]byte{100, 64, 0, byte(i)})
			record(t, db, start(fmt.Sprint(i), inside, 0))
			names = append(names, codec.RecordKey("default", inside))
		}
		undertaker(t, db)
		undertaker(t, newDB(t, client))
		ctx := t.Context()
		client.Del(ctx, names[0])
		client.Unlink(ctx, names[1])
		client.Rename(ctx, names[2], "elsewhere")
		client.PExpire(ctx, names[3], 10*time.Millisecond)
		record(t, db, stop("4", netip.MustParseAddr("100.64.0.4"), time.Hour))
		testenv.Eventually(t, "all five announced", func() bool { return len(changes(t, db, "default")) >= 10 })
		got := story(changes(t, db, "default"))[5:]
		slices.Sort(got)
		for i, line := range got {
			if want := fmt.Sprintf("deleted 100.64.0.%d %d", i, i); len(line) < len(want) || line[:len(want)] != want {
				t.Errorf("announced %q", got)
			}
		}
		checkBuried(t, db, "0", subscriber.ReasonRemovedInDatabase)
	})
}

func checkBuried(t *testing.T, db *DB, id string, why subscriber.Reason) {
	t.Helper()
	line := db.client.Get(t.Context(), codec.SessionKey("default", start(id, addr, 0).SessionID)).Val()
	if s, err := codec.ParseState(line); err != nil || s.Phase != subscriber.Closed || s.Reason != why {
		t.Errorf("session %s is remembered as %q", id, line)
	}
}

// TestVanishedInNumberedDatabase_DEL08: the watcher gets notifications of its own database,
// and of no other.
func TestVanishedInNumberedDatabase_DEL08(t *testing.T) {
	server := testenv.StartRedis(t)
	db := newDB(t, redistest.Dial(t, server.URL+"?db=3"))
	setMarker(t, db, "default")
	record(t, db, start("a", addr, 0), start("b", next, 0))
	undertaker(t, db)
	for i, inside := range []netip.Addr{addr, next} { // the first may be found by the first scan
		if err := db.client.Del(t.Context(), codec.RecordKey("default", inside)).Err(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "announced", func() bool { return len(changes(t, db, "default")) == 3+i })
	}
}

// TestVanishedAmongStops_DEL08: records that another program removes are found among the
// notifications that Stops cause.
func TestVanishedAmongStops_DEL08(t *testing.T) {
	db := newDB(t, redistest.Start(t))
	setMarker(t, db, "default")
	starts := many(300)
	record(t, db, starts...)
	undertaker(t, db)
	for i, ev := range starts {
		if i%10 == 0 {
			db.client.Del(t.Context(), codec.RecordKey("default", ev.Inside))
		} else {
			record(t, db, stop(ev.AcctSessionID, ev.Inside, time.Hour))
		}
	}
	testenv.Eventually(t, "all announced", func() bool { return len(changes(t, db, "default")) >= 2*len(starts) })
	reasons := map[subscriber.Reason]int{}
	for _, c := range changes(t, db, "default")[len(starts):] {
		reasons[c.Reason]++
	}
	if len(reasons) != 2 || reasons[subscriber.ReasonRemovedInDatabase] != 30 || reasons[subscriber.ReasonStop] != 270 {
		t.Errorf("announced %v", reasons)
	}
}

// TestMissedNotifications_DEL09: records removed while there was no connection are found at
// the next one.
func TestMissedNotifications_DEL09(t *testing.T) {
	server := testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	db := newDB(t, redistest.Dial(t, server.URL))
	setMarker(t, db, "default")
	record(t, db, start("a", addr, 0), start("b", next, 0))
	db.client.Del(t.Context(), codec.RecordKey("default", addr))
	undertaker(t, db)
	testenv.Eventually(t, "found at the first connection", func() bool { return len(changes(t, db, "default")) == 3 })

	server.Kill()
	server.Start(t)
	answers(t, db)
	db.client.Del(t.Context(), codec.RecordKey("default", next))
	testenv.Eventually(t, "found after reconnecting", func() bool { return len(changes(t, db, "default")) == 4 })
}

// TestConfigRefused: without notifications removed records are found nevertheless.
func TestConfigRefused(t *testing.T) {
	client := redistest.Start(t, "--rename-command", "CONFIG", "")
	db := newDB(t, client)
	setMarker(t, db, "default")
	record(t, db, start("a", addr, 0))
	undertaker(t, db)
	client.Del(t.Context(), codec.RecordKey("default", addr))
	testenv.Eventually(t, "found", func() bool { return len(changes(t, db, "default")) == 2 })
}

// TestAnnounceLooks: AnnounceDeleted never announces the end of a record that exists, makes
// Redis expire one whose TTL has run out, and finds the reason.
func TestAnnounceLooks(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		now := func() time.Time { return t0.Add(90 * time.Second) }
		db := newDB(t, client, func(o *Options) { o.Now = now })
		brief := newDB(t, client, func(o *Options) {
			o.Now = now
			o.Groups = []Group{{Name: "default", Inside: testGroups()[0].Inside, RecordTTL: 30 * time.Millisecond}}
		})
		setMarker(t, db, "default")
		announce := func(inside netip.Addr) {
			if err := brief.AnnounceDeleted(t.Context(), []subscriber.Key{key(inside)}, subscriber.ReasonNone); err != nil {
				t.Fatal(err)
			}
		}
		record(t, db, start("b", next, 0))
		announce(next)
		if n := len(changes(t, db, "default")); n != 1 {
			t.Fatalf("%d changes: a standing record was buried", n)
		}
		record(t, brief, start("a", addr, time.Minute))
		testenv.Eventually(t, "expired", func() bool { announce(addr); return len(changes(t, db, "default")) == 3 })
		announce(addr)
		list := changes(t, db, "default")
		if len(list) != 3 || list[2].Reason != subscriber.ReasonExpired {
			t.Errorf("feed %q", story(list))
		}
		checkBuried(t, db, "a", subscriber.ReasonExpired)
		record(t, db, interim("a", addr, 2*time.Minute))
		if got := online(t, db, addr); got != "a" {
			t.Error("an Interim after expiry does not bring the session back")
		}
	})
}

// TestSweepRestarts_SES15_SES16: a restart ends the older sessions of its NAS only, also
// after a crash of the daemon that recorded it.
func TestSweepRestarts_SES15_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, many(40)...)
		elder := start("other", addr, 0)
		elder.NAS = "nas2"
		on := event(subscriber.EventAccountingOn, "", noAddr, time.Minute)
		record(t, db, elder, on, start("new", next, time.Hour))
		record(t, db, on, start("late", netip.MustParseAddr("100.64.0.9"), time.Second)) // sent again; began before

		task(t, sweeper(newDB(t, client)))
		testenv.Eventually(t, "swept", func() bool { return client.SCard(t.Context(), codec.RestartsKey("default")).Val() == 0 })
		got := map[netip.Addr]string{}
		err := db.Records(t.Context(), "default", func(batch []subscriber.Record) error {
			for _, r := range batch {
				got[r.Inside] = r.AcctSessionID
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		compareMaps(t, "online", got, map[netip.Addr]string{addr: "other", next: "new"})
		checkBuried(t, db, "0", subscriber.ReasonNASRestart)
		if n := client.HLen(t.Context(), codec.OnlineKey("default")).Val(); n != 2 {
			t.Errorf("%d addresses left in the hash of online addresses", n)
		}
	})
}

// many returns Starts of n sessions, each on an address of its own.
func many(n int) []subscriber.Event {
	events := make([]subscriber.Event, n)
	for i := range events {
		events[i] = start(fmt.Sprint(i), netip.AddrFrom4([4]byte{100, 64, byte(1 + i>>8), byte(i)}), 0)
	}
	return events
}

// TestSweepIsTold_SES17: a restart is recorded at once, for any number of sessions, and the
// daemon that records it sweeps at once.
func TestSweepIsTold_SES17(t *testing.T) {
	db := newDB(t, redistest.Start(t))
	record(t, db, many(3*endBatch)...)
	record(t, db, event(subscriber.EventAccountingOff, "", noAddr, time.Minute))
	record(t, db, start("new", addr, time.Hour))
	task(t, sweeper(db))
	testenv.Eventually(t, "swept", func() bool { return db.client.SCard(t.Context(), codec.RestartsKey("default")).Val() == 0 })
	compareReplay(t, db, map[netip.Addr]string{addr: "new"})
}

// TestSweepByWhatIsFollowed_SES15: records that a reader of the feed has in memory are not
// read; where they are out of date, the sweep ends no session that the restart does not
// end.
func TestSweepByWhatIsFollowed_SES15(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, many(40)...)
		known := map[netip.Addr]subscriber.Packed{}
		err := db.Records(t.Context(), "default", func(batch []subscriber.Record) error {
			for i := range batch {
				known[batch[i].Inside] = batch[i].Pack()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		ended, begun, refreshed := many(40)[0].Inside, many(40)[1].Inside, many(40)[2].Inside
		stop := event(subscriber.EventStop, "0", ended, time.Second)
		record(t, db, stop, event(subscriber.EventAccountingOn, "", noAddr, time.Minute),
			start("new", begun, time.Hour), interim("2", refreshed, 30*time.Second))
		var mu sync.Mutex
		told := 0
		task(t, func(ctx context.Context) error {
			return db.SweepRestarts(ctx, func(_ string, inside []netip.Addr, yield func(int, *subscriber.Packed)) {
				mu.Lock()
				defer mu.Unlock()
				for i, a := range inside {
					if r, ok := known[a]; ok {
						told++
						yield(i, &r)
					}
				}
			})
		})
		testenv.Eventually(t, "swept", func() bool { return client.SCard(t.Context(), codec.RestartsKey("default")).Val() == 0 })
		compareReplay(t, db, map[netip.Addr]string{begun: "new"})
		mu.Lock()
		defer mu.Unlock()
		if told < 39 {
			t.Errorf("asked about %d records", told)
		}
	})
}

func TestDelete_DEL08(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, func(o *Options) { o.Now = func() time.Time { return t0.Add(time.Hour) } })
		record(t, db, start("a", addr, 0), start("b", next, 0))
		gone, err := db.Delete(t.Context(), []subscriber.Key{key(addr), key(away)}, subscriber.ReasonAdmin, nil)
		if err != nil || len(gone) != 1 || gone[0].AcctSessionID != "a" {
			t.Fatalf("deleted %+v, %v", gone, err)
		}
		checkBuried(t, db, "a", subscriber.ReasonAdmin)
		record(t, db, start("a", addr, 0), interim("a", addr, time.Minute))
		if got := online(t, db, addr); got != "" {
			t.Errorf("older events brought %q back", got)
		}
		record(t, db, interim("a", addr, 2*time.Hour))
		if got := online(t, db, addr); got != "a" {
			t.Error("a newer Interim does not bring the session back")
		}
	})
}

// everyGroup lets WatchRemovals scan all groups.
func everyGroup(string) bool { return true }

// TestScanWaitsForItsGroup_DEL09: a removal that nobody was notified of is not searched for
// in a group that is not to be scanned yet, and is found once it is.
func TestScanWaitsForItsGroup_DEL09(t *testing.T) {
	db := newDB(t, redistest.Start(t))
	setMarker(t, db, "default")
	record(t, db, start("a", addr, 0))
	if err := db.client.Del(t.Context(), codec.RecordKey("default", addr)).Err(); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	var wanted atomic.Bool
	found := make(chan bool, 10)
	task(t, func(ctx context.Context) error {
		scan := func(group string) bool {
			asked.Add(1)
			return group == "default" && wanted.Load()
		}
		return db.WatchRemovals(ctx, scan, func(subscriber.Key, subscriber.Reason) { found <- wanted.Load() })
	})
	testenv.Eventually(t, "asked twice", func() bool { return asked.Load() >= 2 })
	wanted.Store(true)
	if !<-found {
		t.Error("scanned before its time")
	}
}
