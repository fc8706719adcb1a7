package trail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

func newStore(client redis.UniversalClient) *Store {
	return New(Options{
		Client: redisconn.New(client, Scripts()...), Node: "test", Trails: func() []string { return []string{"default", "east"} },
		Failed: func() {}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
}

// append appends an entry of each key, without a change of data.
func appendKeys(t testing.TB, s *Store, trail string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		ctx := audit.With(t.Context(), &audit.Order{Actor: audit.Actor{Name: "user:0"}, Method: "Any", RequestID: "r-" + key})
		if err := s.Write(ctx, trail, func(e *audit.Entry) { e.Group, e.Keys = trail, []string{key} }, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func names(first, n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(first+i))
	}
	return list
}

func verified(t testing.TB, s *Store, trail string) audit.Verified {
	t.Helper()
	v, err := s.Verify(t.Context(), trail)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRetention: only the oldest entries go, by number or by age, the newest stays, and the
// rest is verified.
func TestRetention(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		appendKeys(t, s, "default", names(1, 30)...)
		for _, step := range []struct {
			r           Retention
			removed     int
			first, last uint64
		}{
			{Retention{}, 0, 1, 30},
			{Retention{Entries: 30}, 0, 1, 30},
			{Retention{Entries: 10}, 20, 21, 30},
			{Retention{Age: time.Hour}, 0, 21, 30},
			{Retention{Entries: 10, Age: time.Nanosecond}, 9, 30, 30},
		} {
			if step.r.Age == time.Nanosecond {
				s.o.Now = func() time.Time { return time.Now().Add(time.Minute) }
			}
			removed, err := s.TrimOnce(t.Context(), step.r)
			if err != nil || removed != step.removed {
				t.Errorf("%+v: removed %d, %v, want %d", step.r, removed, err, step.removed)
			}
			if v := verified(t, s, "default"); v.Flaw != nil || v.First != step.first || v.Last.Number != step.last {
				t.Errorf("%+v: %+v, flaw %+v", step.r, v, v.Flaw)
			}
		}
		appendKeys(t, s, "default", "31")
		if v := verified(t, s, "default"); v.Flaw != nil || v.First != 30 || v.Last.Number != 31 || v.Entries != 2 {
			t.Errorf("then: %+v, flaw %+v", v, v.Flaw)
		}
		if v := verified(t, s, "east"); v.Flaw != nil || v.Entries != 0 || v.First != 0 {
			t.Errorf("an empty trail: %+v", v)
		}
	})
}

// TestManyAreTrimmedInSteps: what one step cannot remove, the next ones do.
func TestManyAreTrimmedInSteps(t *testing.T) {
	t.Parallel()
	s := newStore(redistest.Start(t))
	appendKeys(t, s, "default", names(1, 2*trimStep+7)...)
	if removed, err := s.TrimOnce(t.Context(), Retention{Entries: 5}); err != nil || removed != 2*trimStep+2 {
		t.Errorf("removed %d, %v", removed, err)
	}
	if v := verified(t, s, "default"); v.Flaw != nil || v.Entries != 5 {
		t.Errorf("%+v, flaw %+v", v, v.Flaw)
	}
}

// TestDamageInRedis: entries that somebody changed, dropped or cut off in Redis are named.
func TestDamageInRedis(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(ctx context.Context, client redis.UniversalClient, ids []string) error
		number uint64
		kind   audit.FlawKind
	}{
		"dropped": {func(ctx context.Context, c redis.UniversalClient, ids []string) error {
			return c.XDel(ctx, codec.AuditKey("default"), ids[250]).Err()
		}, 251, audit.Missing},
		"truncated": {func(ctx context.Context, c redis.UniversalClient, ids []string) error {
			return c.XDel(ctx, codec.AuditKey("default"), ids[297:]...).Err()
		}, 298, audit.Truncated},
		"oldest": {func(ctx context.Context, c redis.UniversalClient, _ []string) error {
			return c.XTrimMaxLen(ctx, codec.AuditKey("default"), 100).Err()
		}, 1, audit.Missing},
		"emptied": {func(ctx context.Context, c redis.UniversalClient, _ []string) error {
			return c.Del(ctx, codec.AuditKey("default")).Err()
		}, 1, audit.Truncated},
		"forged behind the end": {func(ctx context.Context, c redis.UniversalClient, _ []string) error {
			return c.XAdd(ctx, &redis.XAddArgs{Stream: codec.AuditKey("default"), Values: []string{"entry", "{}", "hash", "x"}}).Err()
		}, 301, audit.Changed},
		"hidden by an end before it": {func(ctx context.Context, c redis.UniversalClient, ids []string) error {
			stored, err := c.XRange(ctx, codec.AuditKey("default"), ids[4], ids[4]).Result()
			if err != nil {
				return err
			}
			return c.HSet(ctx, codec.AuditHeadKey("default"), "number", 5, "hash", stored[0].Values["hash"]).Err()
		}, 6, audit.Changed},
		"without an end": {func(ctx context.Context, c redis.UniversalClient, _ []string) error {
			return c.Del(ctx, codec.AuditHeadKey("default")).Err()
		}, 301, audit.Truncated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := redistest.Start(t)
			s := newStore(client)
			appendKeys(t, s, "default", names(1, 300)...)
			stored, err := s.Behind(t.Context(), "default", "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, x := range stored {
				ids = append(ids, x.ID)
			}
			if err := c.damage(t.Context(), client, ids); err != nil {
				t.Fatal(err)
			}
			if v := verified(t, s, "default"); v.Flaw == nil || v.Flaw.Number != c.number || v.Flaw.Kind != c.kind {
				t.Errorf("flaw %+v, want %d %s", v.Flaw, c.number, c.kind)
			}
		})
	}
}

// TestEmptiedRedisBeginsAnew: the trail of a Redis that lost its data begins again.
func TestEmptiedRedisBeginsAnew(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		appendKeys(t, s, "default", names(1, 3)...)
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		appendKeys(t, s, "default", "4")
		if v := verified(t, s, "default"); v.Flaw != nil || v.First != 1 || v.Entries != 1 {
			t.Errorf("%+v, flaw %+v", v, v.Flaw)
		}
		if kept := client.SMembers(t.Context(), codec.TrailsKey).Val(); !slices.Equal(kept, []string{"default"}) {
			t.Errorf("names %q", kept)
		}
	})
}

// TestTrailsOfOtherGroups: the trail of a group that is no longer in force is listed, verified
// and trimmed as before. Its name is stored until the trail is gone.
func TestTrailsOfOtherGroups(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		before, s := newStore(client), newStore(client)
		s.o.Trails = func() []string { return []string{"default"} }
		appendKeys(t, before, "east", names(1, 5)...)
		appendKeys(t, before, "default", "6")
		trim := func(s *Store, r Retention, want int) {
			t.Helper()
			if removed, err := s.TrimOnce(t.Context(), r); err != nil || removed != want {
				t.Errorf("removed %d, %v, want %d", removed, err, want)
			}
		}
		check := func(what string, want ...string) {
			t.Helper()
			if all, err := s.Trails(t.Context()); err != nil || !slices.Equal(all, want) {
				t.Errorf("%s: trails %q, %v, want %q", what, all, err, want)
			}
		}
		check("of the group that is gone", audit.DaemonTrail, "default", "east")
		page, err := s.List(t.Context(), audit.Filter{Group: "east"}, audit.Place{}, 10)
		if err != nil || len(page.Entries) != 5 {
			t.Errorf("listed %d, %v", len(page.Entries), err)
		}
		trim(s, Retention{Entries: 2}, 3)
		if v := verified(t, s, "east"); v.Flaw != nil || v.First != 4 || v.Entries != 2 {
			t.Errorf("verified %+v, flaw %+v", v, v.Flaw)
		}

		// What others write into the set is no part of a key. A lost set is mended.
		if err := client.SAdd(t.Context(), codec.TrailsKey, "a}b", "").Err(); err != nil {
			t.Fatal(err)
		}
		check("with names of others", audit.DaemonTrail, "default", "east")
		if err := client.Del(t.Context(), codec.TrailsKey).Err(); err != nil {
			t.Fatal(err)
		}
		trim(before, Retention{}, 0)
		check("after the loss of the set", audit.DaemonTrail, "default", "east")

		if err := s.SetPosition(t.Context(), "east", "file:cgn1", "5-0 7"); err != nil {
			t.Fatal(err)
		}
		if err := client.Del(t.Context(), codec.AuditKey("east")).Err(); err != nil {
			t.Fatal(err)
		}
		trim(s, Retention{}, 0)
		if v := verified(t, s, "east"); v.Flaw == nil || v.Flaw.Kind != audit.Truncated {
			t.Errorf("a trail that somebody deleted is verified: %+v", v)
		}
		check("without entries, and with an end", audit.DaemonTrail, "default", "east")
		if err := client.Del(t.Context(), codec.AuditHeadKey("east")).Err(); err != nil {
			t.Fatal(err)
		}
		trim(s, Retention{}, 0)
		check("once all is deleted", audit.DaemonTrail, "default")
		if n := client.Exists(t.Context(), codec.AuditSinksKey("east")).Val(); n != 0 {
			t.Error("positions of sinks are left behind")
		}
	})
}

// TestNamesOfAnotherType: without the set of names no entry is written, so that no trail is lost
// later; the trails in force can be read.
func TestNamesOfAnotherType(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		if err := client.Set(t.Context(), codec.TrailsKey, "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
		ctx := audit.With(t.Context(), &audit.Order{Actor: audit.Actor{Name: "user:0"}, Method: "Any"})
		err := s.Write(ctx, "default", func(*audit.Entry) {}, []string{"{default}"}, []any{"set", "{default}", "changed"})
		if !errors.Is(err, audit.ErrUnwritten) || client.Exists(t.Context(), "{default}").Val() != 0 {
			t.Errorf("written: %v", err)
		}
		if all, err := s.Trails(t.Context()); err != nil || len(all) != 3 {
			t.Errorf("trails %q, %v", all, err)
		}
	})
}

// TestEnd: the end of a trail is that of its newest entry, also where its head is lost.
func TestEnd(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		check := func(what string, number, removed uint64, entries bool) {
			t.Helper()
			end, err := s.End(t.Context(), "default")
			if err != nil || end.Number != number || end.Removed != removed || (end.ID != "") != entries {
				t.Errorf("%s: %+v, %v", what, end, err)
			}
		}
		check("of no trail", 0, 0, false)
		appendKeys(t, s, "default", names(1, 5)...)
		if _, err := s.TrimOnce(t.Context(), Retention{Entries: 2}); err != nil {
			t.Fatal(err)
		}
		check("of a trail", 5, 3, true)
		if err := client.Del(t.Context(), codec.AuditHeadKey("default")).Err(); err != nil {
			t.Fatal(err)
		}
		check("without its head", 5, 0, true)
	})
}

// TestListNewestFirst: pages of all trails together have each entry once, newest first.
func TestListNewestFirst(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		for i := range 150 {
			trail := []string{"default", "east", audit.DaemonTrail}[i%3]
			appendKeys(t, s, trail, fmt.Sprint(i))
		}
		for _, limit := range []int{1, 7, 1000} {
			var all []audit.Entry
			for after := (audit.Place{}); ; {
				page, err := s.List(t.Context(), audit.Filter{}, after, limit)
				if err != nil || len(page.Entries) > limit || page.Unread != nil {
					t.Fatal(len(page.Entries), page.Unread, err)
				}
				all = append(all, page.Entries...)
				if after = page.Next; after == (audit.Place{}) {
					break
				}
			}
			seen := map[string]bool{}
			for i := range all {
				seen[all[i].ID()] = true
				if i > 0 && all[i].At.After(all[i-1].At.Add(time.Second)) {
					t.Errorf("limit %d: %v behind %v", limit, all[i].At, all[i-1].At)
				}
			}
			if len(all) != 150 || len(seen) != 150 {
				t.Errorf("limit %d: %d entries, %d different", limit, len(all), len(seen))
			}
		}
		page, err := s.List(t.Context(), audit.Filter{Group: "east", RequestID: "r-1"}, audit.Place{}, 10)
		if err != nil || len(page.Entries) != 1 || !slices.Equal(page.Entries[0].Keys, []string{"1"}) {
			t.Errorf("filtered: %+v, %v", page, err)
		}
		if page, err := s.List(t.Context(), audit.Filter{From: time.Now().Add(time.Hour)}, audit.Place{}, 10); err != nil || page.Entries != nil || page.Next != (audit.Place{}) {
			t.Errorf("of the future: %+v, %v", page, err)
		}
	})
}

// TestRequests: a request is known across daemons; its name is of one request of one actor.
func TestRequests(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		a, b := newStore(client), newStore(client)
		r := audit.Request{Actor: "user:0", ID: "r1", Digest: "d1"}
		begin := func(s *Store, r audit.Request, want audit.Remembered) audit.Request {
			t.Helper()
			got, err := s.BeginRequest(t.Context(), r)
			r.Began = got.Began
			if err != nil || got.Began.IsZero() != want.Other || got.Other != want.Other || got.Again != want.Again || string(got.Answer) != string(want.Answer) {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
			return r
		}
		r = begin(a, r, audit.Remembered{})
		begin(b, r, audit.Remembered{Again: true})
		begin(b, audit.Request{Actor: "user:0", ID: "r1", Digest: "d2"}, audit.Remembered{Other: true})
		begin(b, audit.Request{Actor: "user:1", ID: "r1", Digest: "d2"}, audit.Remembered{})
		if err := a.EndRequest(t.Context(), r, []byte("answer\x00")); err != nil {
			t.Fatal(err)
		}
		begin(b, r, audit.Remembered{Answer: []byte("answer\x00")})
		if ttl := client.PTTL(t.Context(), codec.RequestKey("user:0", "r1")).Val(); ttl < RequestLife || ttl > requestTTL {
			t.Errorf("it is kept for %v", ttl)
		}
		if err := a.ForgetRequest(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		begin(b, r, audit.Remembered{})
	})
}

// TestRequestsOfTheVersionBefore: a request that was remembered without its times is carried out no
// second time after an upgrade.
func TestRequestsOfTheVersionBefore(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		for id, fields := range map[string][]any{
			"begun": {"digest", "d1"}, "answered": {"digest", "d1", "answer", "done"},
		} {
			if err := client.HSet(t.Context(), codec.RequestKey("user:0", id), fields...).Err(); err != nil {
				t.Fatal(err)
			}
			r := audit.Request{Actor: "user:0", ID: id, Digest: "d1"}
			other := audit.Request{Actor: "user:0", ID: id, Digest: "d2"}
			for range 2 {
				if got, err := s.BeginRequest(t.Context(), other); err != nil || !got.Other {
					t.Errorf("%s, for another: %+v, %v", id, got, err)
				}
				got, err := s.BeginRequest(t.Context(), r)
				answered := id == "answered"
				if err != nil || !got.Began.IsZero() || got.Again == answered || (string(got.Answer) == "done") != answered {
					t.Errorf("%s: %+v, %v", id, got, err)
				}
			}
			if err := s.EndRequest(t.Context(), r, []byte("later")); err != nil {
				t.Fatal(err)
			}
			if got, err := s.BeginRequest(t.Context(), r); err != nil || string(got.Answer) != "later" {
				t.Errorf("%s, ended: %+v, %v", id, got, err)
			}
		}
	})
}

// TestNameOfARequest: a request_id belongs to a request until 15 minutes have passed without an
// attempt of it, on any daemon, and then to the next one.
func TestNameOfARequest(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		a, b := newStore(client), newStore(client)
		start := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		now := start
		clock := func() time.Time { return now }
		a.o.Now, b.o.Now = clock, clock
		first, second := audit.Request{Actor: "user:0", ID: "r1", Digest: "d1"}, audit.Request{Actor: "user:0", ID: "r1", Digest: "d2"}
		const last = RequestLife - time.Millisecond // the end of a life, just before it
		step := func(what string, after time.Duration, s *Store, r audit.Request, want audit.Remembered) {
			t.Helper()
			now = now.Add(after)
			got, err := s.BeginRequest(t.Context(), r)
			if err != nil || got.Other != want.Other || got.Again != want.Again || string(got.Answer) != string(want.Answer) || !got.Began.Equal(want.Began) {
				t.Errorf("%s: %+v, %v, want %+v", what, got, err, want)
			}
		}
		step("first", 0, a, first, audit.Remembered{Began: start})
		step("another in time", last, b, second, audit.Remembered{Other: true})
		step("again in time", 0, b, first, audit.Remembered{Again: true, Began: start})
		step("again, once more", last, a, first, audit.Remembered{Again: true, Began: start})
		now = now.Add(last)
		first.Began = start
		if err := a.EndRequest(t.Context(), first, []byte("done")); err != nil {
			t.Fatal(err)
		}
		step("answered in time", last, b, first, audit.Remembered{Answer: []byte("done"), Began: start})
		step("answered, once more", last, b, first, audit.Remembered{Answer: []byte("done"), Began: start})
		step("another, too early", last, b, second, audit.Remembered{Other: true})
		step("another in its place", time.Millisecond, b, second, audit.Remembered{Began: now.Add(time.Millisecond)})
		second.Began = now

		// The end of an attempt of the first does not touch the second.
		if err := errors.Join(a.EndRequest(t.Context(), first, []byte("late")), a.ForgetRequest(t.Context(), first)); err != nil {
			t.Fatal(err)
		}
		step("the second again", last, a, second, audit.Remembered{Again: true, Began: second.Began})
		step("the second, too late", RequestLife, a, second, audit.Remembered{Began: now.Add(RequestLife)})
		second.Began = now
		if err := a.ForgetRequest(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		step("forgotten", time.Second, b, first, audit.Remembered{Began: now.Add(time.Second)})
	})
}

// TestRequestsWhenFull: a Redis without free memory remembers no new request, and answers those
// that it remembers.
func TestRequestsWhenFull(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t)
	s, now := newStore(client), time.Now()
	s.o.Now = func() time.Time { return now }
	r := audit.Request{Actor: "user:0", ID: "r1", Digest: "d1"}
	known, err := s.BeginRequest(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Began = known.Began
	if err := s.EndRequest(t.Context(), r, []byte("done")); err != nil {
		t.Fatal(err)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if known, err := s.BeginRequest(t.Context(), r); err != nil || string(known.Answer) != "done" {
		t.Errorf("again: %+v, %v", known, err)
	}
	if _, err := s.BeginRequest(t.Context(), audit.Request{Actor: "user:0", ID: "r2"}); !redisconn.IsFull(err) {
		t.Errorf("a new one: %v", err)
	}
}

// TestReplace: the entry tells the value that its step replaced, though others change it
// meanwhile; where they never stop nothing is changed.
func TestReplace(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		const text, hash = "{default}text", "{default}hash"
		replace := func(value string, meanwhile func()) error {
			ctx := audit.With(t.Context(), &audit.Order{Actor: audit.Actor{Name: "user:0"}, Method: "Any"})
			return s.Replace(ctx, "default", []Value{{Key: text}, {Key: hash, Field: "f"}}, func(e *audit.Entry, old []*string) {
				for _, o := range old {
					if o == nil {
						e.Keys = append(e.Keys, "none")
					} else {
						e.Keys = append(e.Keys, *o)
					}
				}
				meanwhile()
			}, []any{"set", text, value}, []any{"hset", hash, "f", value})
		}
		times := 0
		for i, meanwhile := range []func(){
			func() {},
			func() {},
			func() {
				if times++; times == 1 {
					client.Set(t.Context(), text, "other", 0)
				}
			},
			func() {
				if times++; times == 3 {
					client.HDel(t.Context(), hash, "f")
				}
			},
		} {
			if err := replace(fmt.Sprint("value", i), meanwhile); err != nil {
				t.Fatal(err)
			}
		}
		var told []string
		check := func(what string, want ...string) {
			t.Helper()
			told = nil
			stored, err := s.Behind(t.Context(), "default", "", 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range stored {
				e, err := audit.ParseEntry(x.Text)
				if err != nil {
					t.Fatal(err)
				}
				told = append(told, strings.Join(e.Keys, " "))
			}
			if !slices.Equal(told, want) {
				t.Errorf("%s: %q, want %q", what, told, want)
			}
		}
		want := []string{"none none", "value0 value0", "other value1", "value2 none"}
		check("replaced", want...)
		if err := replace("never", func() { times++; client.Set(t.Context(), text, times, 0) }); err == nil {
			t.Error("replaced a value that changes all the time")
		}
		if got := client.HGet(t.Context(), hash, "f").Val(); got != "value3" {
			t.Errorf("the other value is %q", got)
		}
		check("then", want...)
		if err := client.Del(t.Context(), text).Err(); err != nil {
			t.Fatal(err)
		}
		if err := client.SAdd(t.Context(), text, "x").Err(); err != nil {
			t.Fatal(err)
		}
		if err := replace("never", func() {}); !redisconn.IsWrongType(err) {
			t.Errorf("replaced a set: %v", err)
		}
	})
}

// TestPositions: a sink's position is stored for it alone.
func TestPositions(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		if p, err := s.Position(t.Context(), "default", "file:cgn1"); p != "" || err != nil {
			t.Errorf("at first %q, %v", p, err)
		}
		if err := s.SetPosition(t.Context(), "default", "file:cgn1", "5-0 7"); err != nil {
			t.Fatal(err)
		}
		if p, err := newStore(client).Position(t.Context(), "default", "file:cgn1"); p != "5-0 7" || err != nil {
			t.Errorf("then %q, %v", p, err)
		}
		if p, err := s.Position(t.Context(), "east", "file:cgn1"); p != "" || err != nil {
			t.Errorf("of another trail %q, %v", p, err)
		}
	})
}

// TestFailuresThatCount: a caller who leaves, a Redis that is away and a change that fails by
// itself are no entries that could not be written; a trail of another type, and an outcome
// that is in no trail, are.
func TestFailuresThatCount(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t)
	s, failed := newStore(client), 0
	s.o.Failed = func() { failed++ }
	ordered := func(ctx context.Context) context.Context {
		return audit.With(ctx, &audit.Order{Actor: audit.Actor{Name: "user:0"}, Method: "Any"})
	}
	check := func(what string, want int, err error) {
		t.Helper()
		if err == nil || failed != want {
			t.Errorf("%s: %d count, want %d, error %v", what, failed, want, err)
		}
		failed = 0
	}
	entry := func(*audit.Entry) {}
	gone, leave := context.WithCancel(ordered(t.Context()))
	leave()
	check("a caller who left", 0, s.Write(gone, "default", entry, nil))
	_, err := s.Begin(gone, entry)
	check("an order of a caller who left", 0, err)
	check("a note of a caller who left", 0, s.Note(gone, entry))
	check("a change that fails", 0, s.Write(ordered(t.Context()), "default", entry, nil, []any{"nonsense"}))

	end, err := s.Begin(ordered(t.Context()), entry)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{codec.AuditKey("default"), codec.AuditKey(audit.DaemonTrail)} {
		if err := client.Set(t.Context(), key, "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	check("a trail of another type", 1, s.Write(ordered(t.Context()), "default", entry, nil))
	_, err = s.Begin(ordered(t.Context()), entry)
	check("an order without an entry", 1, err)
	check("a note that cannot be written", 1, s.Note(ordered(t.Context()), entry))
	check("an outcome without an entry", 1, end(3, nil))
}

// TestNote: a note is one entry in the common trail, and without an order there is none.
func TestNote(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		entry := func(e *audit.Entry) { e.Group, e.New = "default", "signed" }
		for _, ctx := range []context.Context{t.Context(), audit.With(t.Context(), &audit.Order{Actor: audit.Actor{Name: "sessiond"}, Method: "M"})} {
			if err := s.Note(ctx, entry); err != nil {
				t.Fatal(err)
			}
		}
		page, err := s.List(t.Context(), audit.Filter{}, audit.Place{}, 10)
		list := page.Entries
		if err != nil || len(list) != 1 || list[0].Trail != audit.DaemonTrail || list[0].Group != "default" || list[0].New != "signed" || list[0].Outcome != audit.Done {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// TestTrailOfAnotherType: the check names it, and goes on with the others.
func TestTrailOfAnotherType(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStore(client)
		for _, key := range []string{codec.AuditKey("default"), codec.AuditHeadKey("east")} {
			if err := client.Set(t.Context(), key, "x", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, trail := range []string{"default", "east"} {
			if v := verified(t, s, trail); v.Flaw == nil || v.Flaw.Number != 1 || v.Flaw.Kind != audit.Truncated {
				t.Errorf("%s: flaw %+v", trail, v.Flaw)
			}
		}
	})
}
