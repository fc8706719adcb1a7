package subscriberdb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
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

func at(now time.Time) func(*Options) {
	return func(o *Options) { o.Now = func() time.Time { return now } }
}

// prompt is an Interim of a NAS of bng1 that came after so long, by a clock that is so
// far ahead.
func prompt(nas string, after, ahead time.Duration) subscriber.Event {
	ev := through("bng1", interim("of "+nas, noAddr, after))
	ev.NAS, ev.Stamp = nas, ev.Arrival.Add(ahead)
	ev.Delay = -1
	return ev
}

// refuse records so many events of a NAS that change nothing: Interims of a session
// that is over.
func refuse(t testing.TB, db *DB, nas string, n int) {
	t.Helper()
	refuseAt(t, db, nas, 0, n)
}

var sessions atomic.Int64

func refuseAt(t testing.TB, db *DB, nas string, after time.Duration, n int) {
	t.Helper()
	ev := prompt(nas, after, 0)
	ev.AcctSessionID = fmt.Sprint("over ", sessions.Add(1))
	ev.Kind = subscriber.EventStop
	record(t, db, ev)
	ev.Kind = subscriber.EventInterim
	for range n {
		record(t, db, ev)
	}
}

// nases returns what is known of the NASes of bng1, by name.
func nases(t testing.TB, db *DB) map[string]NAS {
	t.Helper()
	list, err := db.NASes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]NAS{}
	for _, n := range list {
		if n.Client == "bng1" {
			byName[n.Name] = n
		}
	}
	return byName
}

func flush(t testing.TB, db *DB) {
	t.Helper()
	if err := db.FlushNASes(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNASes: the counts of several daemons add up, and of all else the newest counts.
func TestNASes(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		one, two := newDB(t, client, at(t0)), newDB(t, client, at(t0))
		record(t, one, prompt("n", -time.Hour, -8*time.Hour))
		refuse(t, one, "n", 2)
		flush(t, one)
		on := through("bng1", event(subscriber.EventAccountingOn, "", noAddr, time.Minute))
		on.NAS = "n"
		refuse(t, two, "n", 3)
		record(t, two, on)
		flush(t, two)
		record(t, one, prompt("n", 2*time.Minute, -8*time.Hour))
		record(t, one, prompt("other", 0, 0))
		flush(t, one)
		record(t, two, prompt("n", 3*time.Minute, -8*time.Hour), prompt("n", 4*time.Minute, -8*time.Hour))
		flush(t, two)
		for _, db := range []*DB{one, two, newDB(t, client, at(t0))} {
			n := nases(t, db)["n"]
			if !n.LastHeard.Equal(t0.Add(4*time.Minute)) || !n.Restarted.Equal(t0.Add(time.Minute)) {
				t.Errorf("heard %v, restarted %v", n.LastHeard, n.Restarted)
			}
			if !n.Known || n.Offset != -8*time.Hour {
				t.Errorf("offset %v, known %v", n.Offset, n.Known)
			}
			if want := map[string]uint64{"ended": 5}; !maps.Equal(n.Refused, want) {
				t.Errorf("refused %v, want %v", n.Refused, want)
			}
			if other := nases(t, db)["other"]; len(other.Refused) != 0 || !other.Known || other.Offset != 0 {
				t.Errorf("the other one: %+v", other)
			}
		}
	})
}

// TestClockSurvivesRestart_SES13: a daemon that starts knows the clocks of before, so
// that what a relay kept is not taken for new.
func TestClockSurvivesRestart_SES13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, at(t0))
		record(t, db, prompt("n", 0, -8*time.Hour))
		flush(t, db)
		db = newDB(t, client, at(t0.Add(time.Minute)))
		flush(t, db) // as KeepNASes does first
		late := prompt("n", 2*time.Hour, -10*time.Hour)
		db.nases.place(&late)
		if !late.At.Equal(t0) {
			t.Errorf("an event of %v is placed at %v", t0, late.At)
		}
		if n := nases(t, db)["n"]; n.Offset != -8*time.Hour || !n.Known {
			t.Errorf("%+v", n)
		}
	})
}

// TestNothingWrittenBeforeItIsRead: a daemon that hears of a NAS before it could read
// what was known of it overwrites none of that.
func TestNothingWrittenBeforeItIsRead(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, at(t0))
		record(t, db, through("bng2", interim("a", addr, 0)))
		db.nases.unite(NASName{Client: "bng1", Name: "n"}, NASName{Client: "bng2", Name: "nas1"})
		db.nases.restart(NASName{Client: "bng1", Name: "n"}.Session(), t0)
		flush(t, db)
		db = newDB(t, client, at(t0))
		silent := prompt("n", time.Minute, 0)
		silent.Stamp = time.Time{}
		record(t, db, silent)
		n := nases(t, db)["n"]
		if !n.Restarted.Equal(t0) || n.SameAs != (NASName{Client: "bng2", Name: "nas1"}) || !n.LastHeard.Equal(t0.Add(time.Minute)) {
			t.Errorf("%+v", n)
		}
	})
}

// TestNASesForgotten: a NAS that was not heard of for a month is gone from the list,
// and then from Redis and from memory.
func TestNASesForgotten(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		now := t0
		db := newDB(t, client, func(o *Options) { o.Now = func() time.Time { return now } })
		refuse(t, db, "gone", 1)
		refuse(t, db, "stays", 1)
		flush(t, db)
		client.HSet(t.Context(), codec.RefusedKey, "bng1/never stale", 5)
		now = t0.Add(nasForgotten)
		record(t, db, prompt("stays", nasForgotten, 0))
		if got := slices.Sorted(maps.Keys(nases(t, db))); !slices.Equal(got, []string{"gone", "stays"}) {
			t.Errorf("within the month: %v", got)
		}
		now = now.Add(time.Hour)
		if got := slices.Sorted(maps.Keys(nases(t, db))); !slices.Equal(got, []string{"stays"}) {
			t.Errorf("after it: %v", got)
		}
		if err := db.sweepNASes(t.Context()); err != nil {
			t.Fatal(err)
		}
		lines, counts := client.HKeys(t.Context(), codec.NASesKey).Val(), client.HKeys(t.Context(), codec.RefusedKey).Val()
		if !slices.Equal(lines, []string{"bng1/stays"}) || !slices.Equal(counts, []string{"bng1/stays ended"}) {
			t.Errorf("in Redis: %q, %q", lines, counts)
		}
		if db.nases.byKey[NASName{Client: "bng1", Name: "gone"}] != nil || db.nases.byKey[NASName{Client: "bng1", Name: "stays"}] == nil {
			t.Error("in memory it is otherwise")
		}
		refuseAt(t, db, "gone", nasForgotten+time.Hour, 2)
		if n := nases(t, newDB(t, client, at(t0)))["gone"]; n.Refused["ended"] != 0 {
			t.Errorf("before it is written: %+v", n)
		}
		if n := nases(t, db)["gone"]; n.Refused["ended"] != 2 {
			t.Errorf("heard of again: %+v", n)
		}
	})
}

// TestNASNames_ACCT23: a NAS may have any name and breaks nothing.
func TestNASNames_ACCT23(t *testing.T) {
	names := []string{"a b", "a/b", "a\x00b", "a\nb", "a\xffb", "a%20b", "a=b", "ä", "%", " ", "/", "same_as=x/y", strings.Repeat("\xff", 253)}
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, at(t0))
		for i, name := range names {
			refuse(t, db, name, i+1)
			db.nases.unite(NASName{Client: "bng1", Name: name}, NASName{Client: name, Name: name})
		}
		for _, db := range []*DB{db, newDB(t, client, at(t0))} {
			known := nases(t, db)
			for i, name := range names {
				n := known[name]
				if !n.LastHeard.Equal(t0) || n.SameAs != (NASName{Client: name, Name: name}) || !maps.Equal(n.Refused, map[string]uint64{"ended": uint64(i + 1)}) {
					t.Errorf("%q: %+v", name, n)
				}
			}
			if len(known) != len(names) {
				t.Errorf("%d NASes, want %d", len(known), len(names))
			}
		}
		for _, field := range append(client.HKeys(t.Context(), codec.NASesKey).Val(), client.HKeys(t.Context(), codec.RefusedKey).Val()...) {
			if strings.ContainsFunc(field, func(r rune) bool { return r < ' ' || r > '~' }) || strings.Count(field, "/") != 1 || strings.Count(field, " ") > 1 {
				t.Errorf("field %q", field)
			}
		}
	})
}

// TestHandsOff: what persons write, or delete, does no harm.
func TestHandsOff(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, at(t0))
		refuse(t, db, "n", 1)
		refuse(t, db, "m", 1)
		flush(t, db)
		ctx := t.Context()
		client.HSet(ctx, codec.NASesKey, "nonsense", "heard=2026-03-01T10:00:00Z", "bng1/%6E", "heard=2026-03-01T10:00:00Z", "bng1/odd", "odd")
		client.HSet(ctx, codec.RefusedKey, "bng1/n ended", "many", "nonsense", 3, "bng1/m", "x")
		client.HDel(ctx, codec.NASesKey, "bng1/m")
		refuse(t, db, "n", 2)
		refuse(t, db, "m", 3)
		known := nases(t, db)
		if len(known) != 2 || known["n"].Refused["ended"] != 2 || known["m"].Refused["ended"] != 4 {
			t.Errorf("%+v", known)
		}
	})
}

// TestNASesWithoutRedis: while Redis is away, or refuses to write, the list fails
// and nothing is lost or counted twice.
func TestNASesWithoutRedis(t *testing.T) {
	server := testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	client := impatient(t, server.URL)
	db := newDB(t, client, at(t0))
	refuse(t, db, "n", 2)
	flush(t, db)
	refuse(t, db, "n", 3)
	refuse(t, db, "m", 1)
	fails := func(when string) {
		t.Helper()
		for range 3 {
			if list, err := db.NASes(t.Context()); err == nil {
				t.Fatalf("%s: %+v", when, list)
			}
		}
	}
	server.Kill()
	fails("away")
	server.Start(t)
	if err := client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err(); err != nil {
		t.Fatal(err)
	}
	fails("refusing to write")
	if err := client.ConfigSet(t.Context(), "min-replicas-to-write", "0").Err(); err != nil {
		t.Fatal(err)
	}
	known := nases(t, db)
	if known["n"].Refused["ended"] != 5 || known["m"].Refused["ended"] != 1 {
		t.Errorf("%+v", known)
	}
}

// TestFlushWaitsNoLongerThanItsCaller: somebody else writes, to a Redis that hangs.
func TestFlushWaitsNoLongerThanItsCaller(t *testing.T) {
	db := newDB(t, redistest.Start(t))
	db.nases.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.FlushNASes(ctx); err == nil {
		t.Error("flushed out of turn")
	}
	if err := db.sweepNASes(ctx); err == nil {
		t.Error("swept out of turn")
	}
}

// TestNASesBound_I10: Redis keeps so many NASes and no more; those that stand there go on
// to be written.
func TestNASesBound_I10(t *testing.T) {
	client := redistest.Start(t)
	db := newDB(t, client, at(t0))
	record(t, db, prompt("n", 0, 0))
	flush(t, db)
	line := codec.ParseNASLine("heard=2026-03-01T10:00:00Z")
	var fields []any
	for i := range db.nases.shares.All() - 1 {
		fields = append(fields, fmt.Sprintf("bng9/%d", i), line.Format())
	}
	for chunk := range slices.Chunk(fields, 10_000) {
		if err := client.HSet(t.Context(), codec.NASesKey, chunk...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	refuse(t, db, "n", 1)
	refuse(t, db, "one more", 2)
	list, err := db.NASes(t.Context())
	if err != nil || len(list) != db.nases.shares.All() {
		t.Fatalf("%d NASes, %v", len(list), err)
	}
	known := nases(t, db)
	if len(known) != 1 || known["n"].Refused["ended"] != 1 {
		t.Errorf("%+v", known)
	}
	client.HDel(t.Context(), codec.NASesKey, "bng9/7")
	record(t, db, prompt("one more", time.Minute, 0))
	if n := nases(t, db)["one more"]; n.Refused["ended"] != 2 {
		t.Errorf("once there is room: %+v", n)
	}
	if again := newDB(t, client, at(t0)); again.loadNASes(t.Context()) != nil ||
		again.nases.shares.Of("bng9") > maxReporters || again.nases.shares.Of("bng1") != 2 {
		t.Errorf("a daemon that starts knows %v", again.nases.shares)
	}
}

// TestNASesTogether: daemons that record, write and list at once lose no count.
func TestNASesTogether(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		const daemons, events = 3, 20
		var tasks sync.WaitGroup
		for range daemons {
			db := newDB(t, client, at(t0))
			for i := range 2 {
				name := fmt.Sprint("n", i)
				tasks.Go(func() {
					refuse(t, db, name, events)
					if _, err := db.NASes(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		tasks.Wait()
		known := nases(t, newDB(t, client, at(t0)))
		for _, name := range []string{"n0", "n1"} {
			if got := known[name].Refused["ended"]; got != daemons*events {
				t.Errorf("%s: %d events, want %d", name, got, daemons*events)
			}
		}
	})
}

// TestKeepNASes: what is heard of a NAS stands in Redis soon, and what is gone does
// not stand there any longer.
func TestKeepNASes(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		client.HSet(t.Context(), codec.NASesKey, "bng1/old", "heard=2020-01-01T00:00:00Z")
		db := newDB(t, client, at(t0))
		task(t, db.KeepNASes)
		testenv.Eventually(t, "the old one is gone", func() bool { return client.HLen(t.Context(), codec.NASesKey).Val() == 0 })
		record(t, db, prompt("n", 0, -time.Hour))
		testenv.Eventually(t, "the new one is there", func() bool {
			return client.HGet(t.Context(), codec.NASesKey, "bng1/n").Val() == "heard=2026-03-01T10:00:00Z offset=-3600"
		})
	})
}

func TestNASesInCluster(t *testing.T) {
	db := newDB(t, startCluster(t), at(t0))
	refuse(t, db, "n", 3)
	if n := nases(t, db)["n"]; n.Refused["ended"] != 3 {
		t.Errorf("%+v", n)
	}
	if err := db.sweepNASes(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRefusedOnce: an event that every group refuses is one event.
func TestRefusedOnce(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		told := map[string]int{}
		db := newDB(t, client, at(t0), func(o *Options) {
			o.Refused = func(client string, v subscriber.Verdict) { told[client+" "+v.String()]++ }
		})
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Hour))
		early := interim("a", addr, 0)
		early.Via = "proxy"
		record(t, db, early)
		if want := map[string]int{"proxy outdated": 1}; !maps.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		list := db.nases.news(10)
		if len(list) != 1 || !maps.Equal(list[0].refused, map[subscriber.Verdict]uint64{subscriber.Outdated: 1}) {
			t.Errorf("counted %+v", list)
		}
	})
}
