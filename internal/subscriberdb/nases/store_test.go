package nases

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

// newStore returns the store of one daemon.
func newStore(client redis.UniversalClient, now func() time.Time) *Store {
	return NewStore(NewRegistry(nil), redisconn.New(client, Scripts()...), slog.New(slog.DiscardHandler), now)
}

// prompt returns an Interim of a NAS of bng1 that arrives without delay at t0 plus after;
// the NAS's clock is ahead by the given time.
func prompt(nas string, after, ahead time.Duration) subscriber.Event {
	arrival := t0.Add(after)
	return subscriber.Event{
		Kind:      subscriber.EventInterim,
		SessionID: subscriber.SessionID{Client: "bng1", NAS: nas, AcctSessionID: "of " + nas},
		Arrival:   arrival, Stamp: arrival.Add(ahead), Delay: -1, SessionTime: -1,
	}
}

// hear places events as a daemon does.
func hear(s *Store, events ...subscriber.Event) {
	for i := range events {
		s.known.Place(&events[i])
	}
}

// refuse counts n events of a NAS that change nothing.
func refuse(s *Store, nas string, n int) { refuseAt(s, nas, 0, n) }

func refuseAt(s *Store, nas string, after time.Duration, n int) {
	ev := prompt(nas, after, 0)
	hear(s, ev)
	for range n {
		hear(s, ev)
		s.known.Refuse(ev.SessionID, subscriber.Ended)
	}
}

// nases returns the listed NASes of bng1, by name.
func nases(t testing.TB, store *Store) map[string]NAS {
	t.Helper()
	list, err := store.NASes(t.Context())
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

func flush(t testing.TB, store *Store) {
	t.Helper()
	if err := store.FlushNASes(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNASes: the counts of several daemons add up; of all other data the newest are kept.
func TestNASes(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		one, two := newStore(client, at(t0)), newStore(client, at(t0))
		hear(one, prompt("n", -time.Hour, -8*time.Hour))
		refuse(one, "n", 2)
		flush(t, one)
		on := prompt("n", time.Minute, 0)
		on.Kind = subscriber.EventAccountingOn
		refuse(two, "n", 3)
		hear(two, on)
		two.known.Restart(on.SessionID, on.Arrival)
		flush(t, two)
		hear(one, prompt("n", 2*time.Minute, -8*time.Hour))
		hear(one, prompt("other", 0, 0))
		flush(t, one)
		hear(two, prompt("n", 3*time.Minute, -8*time.Hour), prompt("n", 4*time.Minute, -8*time.Hour))
		flush(t, two)
		for _, store := range []*Store{one, two, newStore(client, at(t0))} {
			n := nases(t, store)["n"]
			if !n.LastHeard.Equal(t0.Add(4*time.Minute)) || !n.Restarted.Equal(t0.Add(time.Minute)) {
				t.Errorf("heard %v, restarted %v", n.LastHeard, n.Restarted)
			}
			if !n.Known || n.Offset != -8*time.Hour {
				t.Errorf("offset %v, known %v", n.Offset, n.Known)
			}
			if want := map[string]uint64{"ended": 5}; !maps.Equal(n.Refused, want) {
				t.Errorf("refused %v, want %v", n.Refused, want)
			}
			if other := nases(t, store)["other"]; len(other.Refused) != 0 || !other.Known || other.Offset != 0 {
				t.Errorf("the other one: %+v", other)
			}
		}
	})
}

// TestClockSurvivesRestart_SES13: a daemon that starts has the clocks of before, so that it
// does not take events from a relay's spool for new ones.
func TestClockSurvivesRestart_SES13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client, at(t0))
		hear(store, prompt("n", 0, -8*time.Hour))
		flush(t, store)
		store = newStore(client, at(t0.Add(time.Minute)))
		flush(t, store) // as KeepNASes does first
		late := prompt("n", 2*time.Hour, -10*time.Hour)
		store.known.Place(&late)
		if !late.At.Equal(t0) {
			t.Errorf("an event of %v is placed at %v", t0, late.At)
		}
		if n := nases(t, store)["n"]; n.Offset != -8*time.Hour || !n.Known {
			t.Errorf("%+v", n)
		}
	})
}

// TestNothingWrittenBeforeItIsRead: a daemon that gets an event of a NAS before it could
// read the stored data overwrites none of them.
func TestNothingWrittenBeforeItIsRead(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client, at(t0))
		other := prompt("nas1", 0, 0)
		other.Client = "bng2"
		hear(store, other)
		store.known.Unite(codec.NASName{Client: "bng1", Name: "n"}, codec.NASName{Client: "bng2", Name: "nas1"})
		store.known.Restart(codec.NASName{Client: "bng1", Name: "n"}.Session(), t0)
		flush(t, store)
		store = newStore(client, at(t0))
		silent := prompt("n", time.Minute, 0)
		silent.Stamp = time.Time{}
		hear(store, silent)
		n := nases(t, store)["n"]
		if !n.Restarted.Equal(t0) || n.SameAs != (codec.NASName{Client: "bng2", Name: "nas1"}) || !n.LastHeard.Equal(t0.Add(time.Minute)) {
			t.Errorf("%+v", n)
		}
	})
}

// TestNASesForgotten: a NAS that was silent for a month is removed from the list, and then
// from Redis and from memory.
func TestNASesForgotten(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		now := t0
		store := newStore(client, func() time.Time { return now })
		refuse(store, "gone", 1)
		refuse(store, "stays", 1)
		flush(t, store)
		client.HSet(t.Context(), codec.RefusedKey, "bng1/never stale", 5)
		now = t0.Add(Life)
		hear(store, prompt("stays", Life, 0))
		if got := slices.Sorted(maps.Keys(nases(t, store))); !slices.Equal(got, []string{"gone", "stays"}) {
			t.Errorf("within the month: %v", got)
		}
		now = now.Add(time.Hour)
		if got := slices.Sorted(maps.Keys(nases(t, store))); !slices.Equal(got, []string{"stays"}) {
			t.Errorf("after it: %v", got)
		}
		if err := store.sweepNASes(t.Context()); err != nil {
			t.Fatal(err)
		}
		lines, counts := client.HKeys(t.Context(), codec.NASesKey).Val(), client.HKeys(t.Context(), codec.RefusedKey).Val()
		if !slices.Equal(lines, []string{"bng1/stays"}) || !slices.Equal(counts, []string{"bng1/stays ended"}) {
			t.Errorf("in Redis: %q, %q", lines, counts)
		}
		if store.known.byKey[codec.NASName{Client: "bng1", Name: "gone"}] != nil || store.known.byKey[codec.NASName{Client: "bng1", Name: "stays"}] == nil {
			t.Error("in memory it is otherwise")
		}
		refuseAt(store, "gone", Life+time.Hour, 2)
		if n := nases(t, newStore(client, at(t0)))["gone"]; n.Refused["ended"] != 0 {
			t.Errorf("before it is written: %+v", n)
		}
		if n := nases(t, store)["gone"]; n.Refused["ended"] != 2 {
			t.Errorf("heard of again: %+v", n)
		}
	})
}

// TestNASNames_ACCT23: a NAS may have any name.
func TestNASNames_ACCT23(t *testing.T) {
	names := []string{"a b", "a/b", "a\x00b", "a\nb", "a\xffb", "a%20b", "a=b", "ä", "%", " ", "/", "same_as=x/y", strings.Repeat("\xff", 253)}
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client, at(t0))
		for i, name := range names {
			refuse(store, name, i+1)
			store.known.Unite(codec.NASName{Client: "bng1", Name: name}, codec.NASName{Client: name, Name: name})
		}
		for _, store := range []*Store{store, newStore(client, at(t0))} {
			known := nases(t, store)
			for i, name := range names {
				n := known[name]
				if !n.LastHeard.Equal(t0) || n.SameAs != (codec.NASName{Client: name, Name: name}) || !maps.Equal(n.Refused, map[string]uint64{"ended": uint64(i + 1)}) {
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

// TestHandsOff: values that operators write or delete do no harm.
func TestHandsOff(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client, at(t0))
		refuse(store, "n", 1)
		refuse(store, "m", 1)
		flush(t, store)
		ctx := t.Context()
		client.HSet(ctx, codec.NASesKey, "nonsense", "heard=2026-03-01T10:00:00Z", "bng1/%6E", "heard=2026-03-01T10:00:00Z", "bng1/odd", "odd")
		client.HSet(ctx, codec.RefusedKey, "bng1/n ended", "many", "nonsense", 3, "bng1/m", "x")
		client.HDel(ctx, codec.NASesKey, "bng1/m")
		refuse(store, "n", 2)
		refuse(store, "m", 3)
		known := nases(t, store)
		if len(known) != 2 || known["n"].Refused["ended"] != 2 || known["m"].Refused["ended"] != 4 {
			t.Errorf("%+v", known)
		}
	})
}

// TestNASesWithoutRedis: while Redis is down, or refuses writes, the list fails and nothing
// is lost or counted twice.
func TestNASesWithoutRedis(t *testing.T) {
	server := testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	client := redistest.Dial(t, server.URL+"?max_retries=-1")
	store := newStore(client, at(t0))
	refuse(store, "n", 2)
	flush(t, store)
	refuse(store, "n", 3)
	refuse(store, "m", 1)
	fails := func(when string) {
		t.Helper()
		for range 3 {
			if list, err := store.NASes(t.Context()); err == nil {
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
	known := nases(t, store)
	if known["n"].Refused["ended"] != 5 || known["m"].Refused["ended"] != 1 {
		t.Errorf("%+v", known)
	}
}

// TestFlushWaitsNoLongerThanItsCaller: a flush ends with its context while another
// goroutine writes to a Redis that hangs.
func TestFlushWaitsNoLongerThanItsCaller(t *testing.T) {
	store := newStore(redistest.Start(t), at(t0))
	store.known.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.FlushNASes(ctx); err == nil {
		t.Error("flushed out of turn")
	}
	if err := store.sweepNASes(ctx); err == nil {
		t.Error("swept out of turn")
	}
}

// TestNASesBound_I10: Redis keeps a bounded number of NASes; the lines of these are still
// updated.
func TestNASesBound_I10(t *testing.T) {
	client := redistest.Start(t)
	store := newStore(client, at(t0))
	hear(store, prompt("n", 0, 0))
	flush(t, store)
	line := codec.ParseNASLine("heard=2026-03-01T10:00:00Z")
	var fields []any
	for i := range store.known.shares.All() - 1 {
		fields = append(fields, fmt.Sprintf("bng9/%d", i), line.Format())
	}
	for chunk := range slices.Chunk(fields, 10_000) {
		if err := client.HSet(t.Context(), codec.NASesKey, chunk...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	refuse(store, "n", 1)
	refuse(store, "one more", 2)
	list, err := store.NASes(t.Context())
	if err != nil || len(list) != store.known.shares.All() {
		t.Fatalf("%d NASes, %v", len(list), err)
	}
	known := nases(t, store)
	if len(known) != 1 || known["n"].Refused["ended"] != 1 {
		t.Errorf("%+v", known)
	}
	client.HDel(t.Context(), codec.NASesKey, "bng9/7")
	hear(store, prompt("one more", time.Minute, 0))
	if n := nases(t, store)["one more"]; n.Refused["ended"] != 2 {
		t.Errorf("once there is room: %+v", n)
	}
	if again := newStore(client, at(t0)); again.loadNASes(t.Context()) != nil ||
		again.known.shares.Of("bng9") > maxOfClient || again.known.shares.Of("bng1") != 2 {
		t.Errorf("a daemon that starts knows %v", again.known.shares)
	}
}

// TestNASesTogether: daemons that record, write and list at once lose no count.
func TestNASesTogether(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		const daemons, events = 3, 20
		var tasks sync.WaitGroup
		for range daemons {
			store := newStore(client, at(t0))
			for i := range 2 {
				name := fmt.Sprint("n", i)
				tasks.Go(func() {
					refuse(store, name, events)
					if _, err := store.NASes(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		tasks.Wait()
		known := nases(t, newStore(client, at(t0)))
		for _, name := range []string{"n0", "n1"} {
			if got := known[name].Refused["ended"]; got != daemons*events {
				t.Errorf("%s: %d events, want %d", name, got, daemons*events)
			}
		}
	})
}

// TestKeepNASes: an event of a NAS is soon stored in Redis, and NASes that were silent for
// long are removed.
func TestKeepNASes(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		client.HSet(t.Context(), codec.NASesKey, "bng1/old", "heard=2020-01-01T00:00:00Z")
		store := newStore(client, at(t0))
		ctx, cancel := context.WithCancel(t.Context())
		kept := make(chan error, 1)
		go func() { kept <- store.KeepNASes(ctx) }()
		defer func() {
			cancel()
			if err := <-kept; err != nil {
				t.Error(err)
			}
		}()
		testenv.Eventually(t, "the old one is gone", func() bool { return client.HLen(t.Context(), codec.NASesKey).Val() == 0 })
		hear(store, prompt("n", 0, -time.Hour))
		testenv.Eventually(t, "the new one is there", func() bool {
			return client.HGet(t.Context(), codec.NASesKey, "bng1/n").Val() == "heard=2026-03-01T10:00:00Z offset=-3600"
		})
	})
}
