package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
	"github.com/sessiond/sessiond/internal/testenv"
)

// ordered returns a context of a caller's order.
func ordered(t testing.TB, method, requestID string) context.Context {
	return audit.With(t.Context(), &audit.Order{
		Actor: audit.Actor{Name: "user:0", Role: "admin", Source: "unix"}, Method: method, Reason: "ticket 7", RequestID: requestID,
	})
}

// entriesOf returns the entries of one trail, oldest first, and checks the chain.
func entriesOf(t testing.TB, db *DB, trail string) []audit.Entry {
	t.Helper()
	checked, err := db.Audit().Verify(t.Context(), trail)
	if err != nil || checked.Flaw != nil {
		t.Errorf("trail %s: %+v, %v", trail, checked.Flaw, err)
	}
	stored, err := db.Audit().Behind(t.Context(), trail, "", 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	var entries []audit.Entry
	for _, x := range stored {
		e, err := audit.ParseEntry(x.Text)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if checked.Entries != len(entries) {
		t.Errorf("trail %s: %d entries are checked, of %d", trail, checked.Entries, len(entries))
	}
	return entries
}

// TestEveryOrderHasItsEntry: each change that a caller orders has its entry, with who, why and
// what; the same without a caller has none.
func TestEveryOrderHasItsEntry(t *testing.T) {
	redistest.OnEach(t, orderEverything)
	t.Run("cluster", func(t *testing.T) { orderEverything(t, startCluster(t)) })
}

func orderEverything(t *testing.T, client redis.UniversalClient) {
	db := newDB(t, client)
	record(t, db, start("a", addr, 0), start("b", next, 0))
	mapping := nat.Mapping{
		Group: "default", Kind: nat.MappingStatic, Owner: nat.Owner{UserName: "user-a"}, InsidePort: 22,
		Outside: nat.Endpoint{Protocol: 6, AddrPort: netip.MustParseAddrPort("198.51.100.1:60022")}, CreatedAt: t0,
	}
	pools := []PoolChange{{Prefix: netip.MustParsePrefix("203.0.113.0/28"), Kind: PoolAdded, At: t0}}
	changesOf := func(ctx context.Context) {
		t.Helper()
		put := subscriber.Record{Key: key(netip.MustParseAddr("100.64.0.3")), UserName: "carol"}
		if _, err := db.Put(ctx, put); err != nil {
			t.Fatal(err)
		}
		if ended, err := db.Delete(ctx, []subscriber.Key{key(addr), key(next)}, subscriber.ReasonAdmin, nil); err != nil {
			t.Fatal(ended, err)
		}
		if err := db.SetSettings(ctx, map[string]string{"idle_timeouts.udp": "5m0s"}); err != nil {
			t.Fatal(err)
		}
		if err := db.SavePoolChanges(ctx, "default", pools); err != nil {
			t.Fatal(err)
		}
		if err := db.SaveMappings(ctx, "default", []nat.Mapping{mapping}, nil); err != nil {
			t.Fatal(err)
		}
	}
	changesOf(ordered(t, "Any", ""))
	changesOf(t.Context()) // by sessiond itself
	var told []string
	for _, e := range append(entriesOf(t, db, "default"), entriesOf(t, db, audit.DaemonTrail)...) {
		told = append(told, fmt.Sprintf("%s %s %d %v", e.ID(), e.Group, e.Count, e.Keys))
		if e.Actor != "user:0" || e.Role != "admin" || e.Source != "unix" || e.Reason != "ticket 7" || e.Method != "Any" || e.Node != "test" || e.Outcome != audit.Done {
			t.Errorf("entry %+v", e)
		}
	}
	want := []string{
		"default/1 default 1 [100.64.0.3]",
		"default/2 default 2 [100.64.0.1 100.64.0.2]",
		"default/3 default 1 [203.0.113.0/28]",
		"default/4 default 1 [tcp/198.51.100.1:60022]",
		"_/1  1 [idle_timeouts.udp]",
	}
	if !slices.Equal(told, want) {
		t.Errorf("entries\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if online(t, db, addr) != "" || online(t, db, next) != "" {
		t.Error("a deleted subscriber is online")
	}
}

// TestEntryAndChangeAreOne: where the entry cannot be written there is no change, and where
// the change fails no entry.
func TestEntryAndChangeAreOne(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		var unwritten int
		db := newDB(t, client, func(o *Options) { o.Unwritten = func() { unwritten++ } })
		record(t, db, start("a", addr, 0), start("b", next, 0))
		ctx := ordered(t, "DeleteSubscribers", "")

		// The trail is of another type.
		if err := client.Set(t.Context(), codec.AuditKey("default"), "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Delete(ctx, []subscriber.Key{key(addr)}, subscriber.ReasonAdmin, nil); !errors.Is(err, audit.ErrUnwritten) {
			t.Errorf("with a trail of another type: %v", err)
		}
		if _, err := db.Put(ctx, subscriber.Record{Key: key(next), UserName: "other"}); !errors.Is(err, audit.ErrUnwritten) {
			t.Errorf("with a trail of another type: %v", err)
		}
		if online(t, db, addr) != "a" || online(t, db, next) != "b" || unwritten == 0 {
			t.Errorf("changed without an entry, or not counted (%d)", unwritten)
		}
		record(t, db, interim("a", addr, time.Minute), stop("b", next, time.Minute)) // accounting goes on
		if err := client.Del(t.Context(), codec.AuditKey("default")).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Delete(ctx, []subscriber.Key{key(addr)}, subscriber.ReasonAdmin, nil); err != nil || online(t, db, addr) != "" {
			t.Errorf("once it is deleted: %v", err)
		}
		if n := len(entriesOf(t, db, "default")); n != 1 {
			t.Errorf("%d entries", n)
		}

		// The feed is of another type: the entry is taken back.
		record(t, db, start("c", addr, 2*time.Minute))
		for _, step := range []string{"first", "later"} {
			if step == "first" {
				client.Del(t.Context(), codec.AuditKey("default"), codec.AuditHeadKey("default"))
			} else if err := db.SaveMappings(ctx, "default", nil, []nat.Endpoint{{Protocol: 6, AddrPort: netip.MustParseAddrPort("198.51.100.1:1")}}); err != nil {
				t.Fatal(err)
			}
			before := len(entriesOf(t, db, "default"))
			if err := client.Rename(t.Context(), codec.FeedKey("default"), codec.FeedKey("default")+":kept").Err(); err != nil {
				t.Fatal(err)
			}
			if err := client.Set(t.Context(), codec.FeedKey("default"), "x", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Delete(ctx, []subscriber.Key{key(addr)}, subscriber.ReasonAdmin, nil); err == nil {
				t.Error("deleted without an entry in the feed")
			}
			if online(t, db, addr) != "c" || len(entriesOf(t, db, "default")) != before {
				t.Errorf("%s: changed, or an entry without a change", step)
			}
			if err := client.Rename(t.Context(), codec.FeedKey("default")+":kept", codec.FeedKey("default")).Err(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestMassDeletionInParts: a large deletion has an entry for each of its steps; together they
// name each subscriber once.
func TestMassDeletionInParts(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		const n = 3*txn.BatchSize + 5
		var events []subscriber.Event
		var keys []subscriber.Key
		for i := range n {
			a := netip.AddrFrom4([4]byte{100, 64, byte(i / 256), byte(i % 256)})
			events, keys = append(events, start(fmt.Sprint("s", i), a, 0)), append(keys, key(a))
		}
		record(t, db, events...)
		ctx := ordered(t, "DeleteSubscribers", "r1")
		ended, err := db.Delete(ctx, keys, subscriber.ReasonAdmin, nil)
		if err != nil || len(ended) != n {
			t.Fatal(len(ended), err)
		}
		seen := map[string]bool{}
		for i, e := range entriesOf(t, db, "default") {
			if e.Part != i+1 || e.Count != len(e.Keys) || e.Count > txn.BatchSize {
				t.Errorf("entry %d: part %d of %d keys, count %d", i, e.Part, len(e.Keys), e.Count)
			}
			for _, k := range e.Keys {
				if seen[k] {
					t.Errorf("%s twice", k)
				}
				seen[k] = true
			}
		}
		if len(seen) != n {
			t.Errorf("%d subscribers are named, of %d", len(seen), n)
		}
		again, err := db.Delete(ctx, keys, subscriber.ReasonAdmin, nil)
		if err != nil || len(again) != 0 || len(entriesOf(t, db, "default")) != 4 {
			t.Errorf("deleted again: %d, %v", len(again), err)
		}
		order := audit.From(ordered(t, "DeleteSubscribers", "r1"))
		if found, err := db.EarlierEntries(audit.With(t.Context(), order)); err != nil || found != nil {
			t.Errorf("a first attempt has %d entries, %v", len(found), err)
		}
		order.Again = true
		if found, err := db.EarlierEntries(audit.With(t.Context(), order)); err != nil || len(found) != 4 {
			t.Errorf("an attempt that comes again has %d entries, %v", len(found), err)
		}
	})
}

// TestManyDaemonsOneTrail: daemons that append to one trail at once make one chain.
func TestManyDaemonsOneTrail(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		const daemons, each = 4, 25
		var all sync.WaitGroup
		for i := range daemons {
			db := newDB(t, client)
			all.Go(func() {
				for j := range each {
					if err := db.SetSettings(ordered(t, "UpdateSettings", ""), map[string]string{"idle_timeouts.udp": fmt.Sprint(i, j)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		entries := entriesOf(t, newDB(t, client), audit.DaemonTrail)
		if len(entries) != daemons*each {
			t.Errorf("%d entries", len(entries))
		}
		for i := 1; i < len(entries); i++ {
			if entries[i].Old != entries[i-1].New {
				t.Errorf("entry %d replaced %q by its own words, entry %d wrote %q", i+1, entries[i].Old, i, entries[i-1].New)
			}
		}
		live, err := client.HGet(t.Context(), codec.SettingsKey, "idle_timeouts.udp").Result()
		if err != nil || "idle_timeouts.udp="+live != entries[len(entries)-1].New {
			t.Errorf("in force is %q, the last entry says %q, %v", live, entries[len(entries)-1].New, err)
		}
	})
}

// TestManyDaemonsChangePools: entries of pools that daemons change at once tell what each replaced.
func TestManyDaemonsChangePools(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		const daemons, each = 3, 15
		var all sync.WaitGroup
		for i := range daemons {
			db := newDB(t, client)
			all.Go(func() {
				for j := range each {
					prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(i), byte(j)}), 32)
					if err := db.SavePoolChanges(ordered(t, "AddPool", ""), "default", []PoolChange{{Prefix: prefix, Kind: PoolAdded, At: t0}}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		entries := entriesOf(t, newDB(t, client), "default")
		for i := range entries {
			was, count := "", 1
			if i > 0 {
				was, count = entries[i-1].New, 2 // one prefix goes, one comes
			}
			if e := &entries[i]; e.Old != was || len(e.Keys) != count {
				t.Errorf("entry %d replaced %q by its own words, %q was there; it names %q", i+1, e.Old, was, e.Keys)
			}
		}
		if len(entries) != daemons*each {
			t.Errorf("%d entries", len(entries))
		}
	})
}

// TestNextRequestWithAName: once a request_id is free, another request with it is not taken for a
// part of the first, also where it is interrupted.
func TestNextRequestWithAName(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		now := time.Now().Add(-2 * trail.RequestLife) // or the clock of Redis would be far behind in the end
		db := newDB(t, client, func(o *Options) { o.Now = func() time.Time { return now } })
		attempt := func(inside netip.Addr) (earlier []audit.Entry) {
			t.Helper()
			ctx := ordered(t, "DeleteSubscribers", "r1")
			order := audit.From(ctx)
			known, err := db.Audit().BeginRequest(ctx, audit.Request{Actor: order.Name, ID: order.RequestID, Digest: "d"})
			if err != nil {
				t.Fatal(err)
			}
			order.Again, order.RequestAt = known.Again, known.Began
			if earlier, err = db.EarlierEntries(ctx); err != nil {
				t.Fatal(err)
			}
			record(t, db, start("s-"+inside.String(), inside, 0))
			if ended, err := db.Delete(ctx, []subscriber.Key{key(inside)}, subscriber.ReasonAdmin, nil); len(ended) != 1 || err != nil {
				t.Fatal(ended, err)
			}
			return earlier
		}
		at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 3, n}) }
		attempt(at(1))
		now = now.Add(trail.RequestLife - time.Second)
		if found := attempt(at(2)); len(found) != 1 || found[0].Keys[0] != at(1).String() {
			t.Errorf("the second attempt of the first request has %+v", found)
		}
		now = now.Add(trail.RequestLife)
		if found := attempt(at(3)); found != nil {
			t.Errorf("the next request has %+v", found)
		}
		now = now.Add(time.Second)
		if found := attempt(at(4)); len(found) != 1 || found[0].Keys[0] != at(3).String() {
			t.Errorf("its second attempt has %+v", found)
		}
	})
}

// TestValidateOnlyChangesNothing: a mistake in a caller of the store changes nothing.
func TestValidateOnlyChangesNothing(t *testing.T) {
	t.Parallel()
	db := newDB(t, redistest.Start(t))
	record(t, db, start("a", addr, 0))
	ctx := ordered(t, "DeleteSubscribers", "")
	audit.From(ctx).ValidateOnly = true
	if _, err := db.Delete(ctx, []subscriber.Key{key(addr)}, subscriber.ReasonAdmin, nil); !errors.Is(err, audit.ErrValidateOnly) {
		t.Errorf("delete: %v", err)
	}
	if err := db.SetSettings(ctx, map[string]string{"idle_timeouts.udp": "1s"}); !errors.Is(err, audit.ErrValidateOnly) {
		t.Errorf("settings: %v", err)
	}
	if _, err := db.BeginOrder(ctx, func(*audit.Entry) {}); !errors.Is(err, audit.ErrValidateOnly) {
		t.Errorf("kernel: %v", err)
	}
	if online(t, db, addr) != "a" {
		t.Error("it was deleted")
	}
}

// TestOrdersWhenFull: on a Redis without free memory a caller can end subscribers, with the
// entry; nothing else is changed, and no order to the kernel is carried out.
func TestOrdersWhenFull(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t)
	db := newDB(t, client)
	record(t, db, start("a", addr, 0), start("b", next, 0))
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	ctx := ordered(t, "Any", "")
	if ended, err := db.Delete(ctx, []subscriber.Key{key(addr)}, subscriber.ReasonAdmin, nil); len(ended) != 1 || err != nil {
		t.Errorf("delete: %v, %v", ended, err)
	}
	if _, err := db.Put(ctx, subscriber.Record{Key: key(next), UserName: "other"}); !IsFull(err) {
		t.Errorf("put: %v", err)
	}
	if err := db.SetSettings(ctx, map[string]string{"idle_timeouts.udp": "1s"}); !IsFull(err) {
		t.Errorf("settings: %v", err)
	}
	if _, err := db.BeginOrder(ctx, func(*audit.Entry) {}); !errors.Is(err, audit.ErrUnwritten) || !IsFull(err) {
		t.Errorf("kernel: %v", err)
	}
	if entries := entriesOf(t, db, "default"); len(entries) != 1 || entries[0].Keys[0] != addr.String() {
		t.Errorf("entries %+v", entries)
	}
}

// TestOrderToTheKernel: an order has an entry before it, and one with its outcome.
func TestOrderToTheKernel(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		for _, failed := range []error{nil, errors.New("the kernel refused")} {
			end, err := db.BeginOrder(ordered(t, "TerminateSessions", ""), func(e *audit.Entry) { e.Group, e.Count = "default", 5 })
			if err != nil {
				t.Fatal(err)
			}
			if err := end(3, failed); err != nil {
				t.Fatal(err)
			}
		}
		entries := entriesOf(t, db, audit.DaemonTrail)
		if len(entries) != 4 {
			t.Fatalf("entries %+v", entries)
		}
		for i, want := range []audit.Entry{
			{Outcome: audit.Ordered, Count: 5, Part: 1}, {Outcome: audit.Done, Count: 3, Part: 2, Of: 1},
			{Outcome: audit.Ordered, Count: 5, Part: 1}, {Outcome: audit.Failed, Count: 3, Part: 2, Of: 3, Error: "the kernel refused"},
		} {
			if e := entries[i]; e.Outcome != want.Outcome || e.Count != want.Count || e.Part != want.Part || e.Of != want.Of || e.Error != want.Error || e.Group != "default" {
				t.Errorf("entry %d: %+v", i, e)
			}
		}
	})
}

// TestRefusalTakesRestartBack: the restart of a NAS that a refusal takes back has an entry too.
func TestRefusalTakesRestartBack(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, start("a", addr, 0))
		r, err := db.Get(t.Context(), key(addr))
		if err != nil {
			t.Fatal(err)
		}
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Minute))
		remove(t, db, addr)
		if err := db.SuspendRemovals(t.Context(), []subscriber.Ending{subscriber.NewEnding(r, subscriber.ReasonNASRestart, t0)}); err != nil {
			t.Fatal(err)
		}
		kept, err := db.RefuseRemovals(ordered(t, "RefuseRemovals", ""), []subscriber.Key{key(addr)})
		if err != nil || len(kept) != 1 {
			t.Fatal(kept, err)
		}
		entries := entriesOf(t, db, "default")
		if len(entries) != 2 || !slices.Equal(entries[0].Keys, []string{"nas:bng1/nas1"}) || !slices.Equal(entries[1].Keys, []string{addr.String()}) {
			t.Errorf("entries %+v", entries)
		}
	})
}

// beforeCall is a hook that runs something once, before a pipeline that calls a script.
type beforeCall struct {
	script *redis.Script
	run    func()
	once   sync.Once
}

func (h *beforeCall) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *beforeCall) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *beforeCall) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, c := range cmds {
			if args := c.Args(); len(args) > 1 && args[1] == h.script.Hash() {
				h.once.Do(h.run)
			}
		}
		return next(ctx, cmds)
	}
}

// TestConflictWithinAnOrder: where another writer changes one of many records meanwhile, that
// one has its turn later, and each record is in one entry.
func TestConflictWithinAnOrder(t *testing.T) {
	for i, script := range txn.RecordedScripts() {
		t.Run(fmt.Sprint("script ", i), func(t *testing.T) {
			t.Parallel()
			url := testenv.StartRedis(t).URL
			client := redistest.Dial(t, url)
			db, other := newDB(t, client), newDB(t, redistest.Dial(t, url))
			if i == 0 {
				db.txns.UseGeneralScript()
			}
			var keys []subscriber.Key
			for j := range 5 {
				a := netip.AddrFrom4([4]byte{100, 64, 3, byte(j)})
				record(t, other, start(fmt.Sprint("s", j), a, 0))
				keys = append(keys, key(a))
			}
			conflicts := 0
			client.AddHook(&beforeCall{script: script, run: func() {
				conflicts++
				record(t, other, interim("s2", keys[2].Inside, time.Minute))
			}})
			ended, err := db.Delete(ordered(t, "DeleteSubscribers", ""), keys, subscriber.ReasonAdmin, nil)
			if err != nil || len(ended) != 5 || conflicts != 1 {
				t.Errorf("%d ended, %v, %d conflicts", len(ended), err, conflicts)
			}
			var seen []string
			for part, e := range entriesOf(t, db, "default") {
				if seen = append(seen, e.Keys...); e.Part != part+1 || e.Count != len(e.Keys) {
					t.Errorf("entry %+v", e)
				}
			}
			if slices.Sort(seen); len(seen) != 5 || len(slices.Compact(seen)) != 5 {
				t.Errorf("entries about %v", seen)
			}
			deleted := 0
			for _, c := range changes(t, db, "default") {
				if c.Kind == subscriber.Deleted {
					deleted++
				}
			}
			if deleted != 5 {
				t.Errorf("%d deletions in the feed", deleted)
			}
		})
	}
}
