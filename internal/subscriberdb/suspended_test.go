package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// known returns the record at an address as a reader of the feed has it.
func known(t *testing.T, db *DB, inside netip.Addr) subscriber.Record {
	t.Helper()
	r, err := db.Get(t.Context(), key(inside))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func remove(t *testing.T, db *DB, addrs ...netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		if err := db.client.Del(t.Context(), codec.RecordKey("default", a)).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func missing(t *testing.T, db *DB, records ...subscriber.Record) map[netip.Addr]Absence {
	t.Helper()
	list, err := db.FindMissing(t.Context(), records, subscriber.ReasonNone)
	if err != nil {
		t.Fatal(err)
	}
	found := map[netip.Addr]Absence{}
	for _, a := range list {
		found[a.Record.Inside] = a
	}
	return found
}

// TestMissing_DEL13: missing records are distinguished from existing ones and from those
// that ended by the feed, also without other traces.
func TestMissing_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		third, fourth := netip.MustParseAddr("100.64.0.3"), netip.MustParseAddr("100.64.0.4")
		record(t, db, start("a", addr, 0), start("b", next, 0), start("c", third, 0), start("d", fourth, 0))
		var all []subscriber.Record
		for _, a := range []netip.Addr{addr, next, third, fourth} {
			all = append(all, known(t, db, a))
		}
		remove(t, db, next, fourth)
		if _, err := db.FindMissing(t.Context(), all, subscriber.ReasonNone); !errors.Is(err, ErrSuspect) {
			t.Fatalf("without a marker: %v", err)
		}
		setMarker(t, db, "default")
		record(t, db, stop("c", third, time.Minute))
		client.HDel(t.Context(), codec.OnlineKey("default"), fourth.String()) // no trace of it is left
		got := missing(t, db, all...)
		if len(got) != 3 || got[next].Told || !got[third].Told || got[fourth].Told {
			t.Fatalf("missing %+v", got)
		}
		if got[next].Reason != subscriber.ReasonRemovedInDatabase || got[third].Reason != subscriber.ReasonStop {
			t.Errorf("reasons %v, %v", got[next].Reason, got[third].Reason)
		}
		// Only the binding is known: the other data are added.
		partial := subscriber.Record{Key: key(next), SessionID: subscriber.SessionID{AcctSessionID: "b"}}
		if r := missing(t, db, partial)[next].Record; r.NAS != "nas1" || r.UserName != "user-b" || !r.StartedAt.Equal(t0) {
			t.Errorf("completed to %+v", r)
		}
		// Another session had the address since.
		other := subscriber.Record{Key: key(next), UserName: "mallory"}
		if r := missing(t, db, other)[next].Record; r.UserName != "user-b" {
			t.Errorf("the session that went is %+v", r)
		}
		// An end older than the known version is that of an earlier session.
		later := all[2]
		later.Version = fmt.Sprintf("%d-0", time.Now().Add(time.Hour).UnixMilli())
		if a := missing(t, db, later)[third]; a.Told {
			t.Errorf("an older end counts: %+v", a)
		}
	})
}

// TestMissingFarBack_DEL13: an end is found at any distance back in the feed.
func TestMissingFarBack_DEL13(t *testing.T) {
	db := newDB(t, redistest.Start(t))
	setMarker(t, db, "default")
	record(t, db, start("a", addr, 0))
	r := known(t, db, addr)
	record(t, db, stop("a", addr, time.Minute))
	record(t, db, many(2*announcedWithin+1)...)
	if a, ok := missing(t, db, r)[addr]; !ok || !a.Told || a.Reason != subscriber.ReasonStop {
		t.Errorf("%+v, want the Stop", a)
	}
}

func held(inside netip.Addr, r subscriber.Record, why subscriber.Reason) []subscriber.Ending {
	r.Key = key(inside)
	return []subscriber.Ending{{Record: r, End: subscriber.End{Reason: why}}}
}

// TestHold_DEL13: a record whose removal is suspended exists, does not expire, is announced
// as an update, and is an ordinary one again after the next Interim.
func TestHold_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db, second := newDB(t, client), newDB(t, client)
		setMarker(t, db, "default")
		record(t, db, start("a", addr, 0))
		record(t, second, interim("a", addr, time.Minute)) // puts the session into the second cache too
		r := known(t, db, addr)
		remove(t, db, addr)
		if err := db.SuspendRemovals(t.Context(), held(addr, r, subscriber.ReasonExpired)); err != nil {
			t.Fatal(err)
		}
		got := known(t, db, addr)
		if got.RemovalHeld != subscriber.ReasonExpired || !got.ExpiresAt.IsZero() || got.Unconfirmed ||
			got.SessionID != r.SessionID || !got.StartedAt.Equal(r.StartedAt) || got.UserName != r.UserName {
			t.Errorf("held as %+v", got)
		}
		list := changes(t, db, "default")
		if last := list[len(list)-1]; last.Kind != subscriber.Updated || last.Record.RemovalHeld != subscriber.ReasonExpired ||
			!last.Record.ExpiresAt.IsZero() || last.ID.String() != got.Version {
			t.Errorf("announced as %+v", last)
		}
		if err := db.AnnounceDeleted(t.Context(), []subscriber.Key{key(addr)}, subscriber.ReasonExpired); err != nil {
			t.Fatal(err)
		}
		if n := len(changes(t, db, "default")); n != len(list) {
			t.Error("it was buried all the same")
		}
		record(t, second, interim("a", addr, 2*time.Minute))
		got = known(t, db, addr)
		if got.RemovalHeld != subscriber.ReasonNone || got.ExpiresAt.IsZero() {
			t.Errorf("after an Interim %+v", got)
		}
		list = changes(t, db, "default")
		if last := list[len(list)-1]; last.Record.RemovalHeld != subscriber.ReasonNone || last.Record.ExpiresAt.IsZero() {
			t.Errorf("the Interim is announced as %+v", last)
		}
		record(t, second, stop("a", addr, time.Hour))
		if online(t, db, addr) != "" {
			t.Error("a Stop does not end it")
		}
	})
}

// TestHoldLeavesAlone_DEL13: records that exist, and those whose sessions ended or moved,
// are not written back.
func TestHoldLeavesAlone_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, start("a", addr, 0), start("b", next, 0))
		a, b := known(t, db, addr), known(t, db, next)
		moved := netip.MustParseAddr("100.64.0.77")
		record(t, db, start("a", addr, time.Second), interim("b", moved, time.Minute)) // b is elsewhere
		for _, e := range [][]subscriber.Ending{
			held(addr, a, subscriber.ReasonExpired), held(next, b, subscriber.ReasonExpired),
		} {
			if err := db.SuspendRemovals(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		if r := known(t, db, addr); r.RemovalHeld != subscriber.ReasonNone {
			t.Errorf("a record that stands became %+v", r)
		}
		if online(t, db, next) != "" {
			t.Error("a session that moved is back at its old address")
		}
		remove(t, db, addr)
		record(t, db, stop("a", addr, time.Minute))
		if err := db.SuspendRemovals(t.Context(), held(addr, a, subscriber.ReasonExpired)); err != nil {
			t.Fatal(err)
		}
		if online(t, db, addr) != "" {
			t.Error("a session that stopped is back")
		}
	})
}

// TestHoldFromBinding_DEL13: a record of which only the binding is known is written back,
// and its BNG takes it over.
func TestHoldFromBinding_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		bound := subscriber.Record{UserName: "user-a", SessionID: subscriber.SessionID{AcctSessionID: "a"}}
		if err := db.SuspendRemovals(t.Context(), held(addr, bound, subscriber.ReasonRemovedInDatabase)); err != nil {
			t.Fatal(err)
		}
		if r := known(t, db, addr); !r.Unconfirmed {
			t.Errorf("held as %+v", r)
		}
		record(t, db, interim("a", addr, time.Minute))
		if r := known(t, db, addr); r.NAS != "nas1" || r.Unconfirmed || r.RemovalHeld != subscriber.ReasonNone {
			t.Errorf("after an Interim %+v", r)
		}
	})
}

// TestMoveOntoHeld_DEL13: the removal of a session that moves to the address of a suspended
// removal is not suspended.
func TestMoveOntoHeld_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, start("a", next, 0))
		if err := db.SuspendRemovals(t.Context(), held(addr, subscriber.Record{}, subscriber.ReasonExpired)); err != nil {
			t.Fatal(err)
		}
		record(t, db, interim("a", addr, time.Minute))
		if r := known(t, db, addr); r.AcctSessionID != "a" || r.RemovalHeld != subscriber.ReasonNone {
			t.Errorf("after the move %+v", r)
		}
	})
}

// TestDecisions_DEL13: a decision changes only records whose removal is suspended.
func TestDecisions_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		record(t, db, start("a", addr, 0), start("b", next, 0))
		both := []subscriber.Key{key(addr), key(next)}
		a := known(t, db, addr)
		hold := func() {
			remove(t, db, addr)
			if err := db.SuspendRemovals(t.Context(), held(addr, a, subscriber.ReasonExpired)); err != nil {
				t.Fatal(err)
			}
		}
		hold()
		kept, err := db.RefuseRemovals(t.Context(), both)
		if err != nil || len(kept) != 1 || kept[0].RemovalHeld != subscriber.ReasonExpired {
			t.Fatalf("refused %+v, %v", kept, err)
		}
		r := known(t, db, addr)
		if left := time.Until(r.ExpiresAt); r.RemovalHeld != subscriber.ReasonNone || left <= 0 || left > testTTL {
			t.Errorf("after a refusal %+v", r)
		}
		hold()
		ended, err := db.ConfirmRemovals(t.Context(), both)
		if err != nil || len(ended) != 1 || ended[0].Inside != addr {
			t.Fatalf("confirmed %+v, %v", ended, err)
		}
		list := changes(t, db, "default")
		if last := list[len(list)-1]; last.Kind != subscriber.Deleted || last.Reason != subscriber.ReasonExpired {
			t.Errorf("announced as %+v", last)
		}
		if online(t, db, next) != "b" {
			t.Error("one that is not held ended, too")
		}
		checkBuried(t, db, "a", subscriber.ReasonExpired)
		record(t, db, start("c", addr, 0))
		a = known(t, db, addr)
		hold()
		if r, err := db.Put(t.Context(), subscriber.Record{Key: key(addr), UserName: "user-c"}); err != nil || r.RemovalHeld != subscriber.ReasonNone {
			t.Errorf("put by hand: %+v, %v", r, err)
		}
	})
}

func guarded(l guard.Limits) func(*Options) {
	return func(o *Options) { o.Groups[0].Guard = l }
}

// heldCount counts the records whose removal is suspended, and all records.
func heldCount(t *testing.T, db *DB, why subscriber.Reason) (n, all int) {
	t.Helper()
	err := db.Records(t.Context(), "default", func(batch []subscriber.Record) error {
		for _, r := range batch {
			if all++; r.RemovalHeld == why {
				n++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, all
}

// TestRestartHeld_DEL13_SES16: a restart that would end more sessions than the guard allows
// is held as a whole, one that ends fewer is not; sessions that began later are not
// affected.
func TestRestartHeld_DEL13_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, guarded(guard.Limits{Minimum: 2, NASRestart: 0.5, Window: time.Hour}))
		record(t, db, many(40)...)
		small := start("small", next, 0)
		small.NAS = "nas2"
		record(t, db, small, start("new", addr, 2*time.Hour))
		on, off := event(subscriber.EventAccountingOn, "", noAddr, time.Hour), event(subscriber.EventAccountingOff, "", noAddr, time.Hour)
		off.NAS = "nas2"
		record(t, db, off)
		sweep(t, db)
		record(t, db, on)
		sweep(t, db)
		if n, all := heldCount(t, db, subscriber.ReasonNASRestart); n != 40 || all != 41 {
			t.Fatalf("%d of %d records held, want 40 of 41", n, all)
		}
		if online(t, db, next) != "" || online(t, db, addr) != "new" {
			t.Error("the small NAS's session goes on, or the new one ended")
		}
		inside := netip.MustParseAddr("100.64.1.0")
		record(t, db, interim("0", inside, 59*time.Minute))
		if n, _ := heldCount(t, db, subscriber.ReasonNASRestart); n != 40 {
			t.Error("an Interim from before the restart was taken in")
		}
		record(t, db, interim("0", inside, 90*time.Minute))
		if n, _ := heldCount(t, db, subscriber.ReasonNASRestart); n != 39 {
			t.Errorf("%d are held once the NAS reported one of them, want 39", n)
		}
		another := netip.MustParseAddr("100.64.1.1")
		keys := []subscriber.Key{key(another)}
		if kept, err := db.RefuseRemovals(t.Context(), keys); err != nil || len(kept) != 1 {
			t.Fatalf("refused %d, %v", len(kept), err)
		}
		record(t, db, interim("2", netip.MustParseAddr("100.64.1.2"), 59*time.Minute))
		if n, _ := heldCount(t, db, subscriber.ReasonNASRestart); n != 37 {
			t.Errorf("%d are held once the restart is taken back, want 37", n)
		}
	})
}

func sweep(t *testing.T, db *DB) {
	t.Helper()
	if err := db.sweepAll(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n := db.client.SCard(t.Context(), codec.RestartsKey("default")).Val(); n != 0 {
		t.Fatalf("%d restarts are still to be swept", n)
	}
}

// TestNewerRestartStays_DEL13: refusing the removals of an earlier restart does not delete
// a later one.
func TestNewerRestartStays_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, guarded(guard.Limits{Window: time.Hour}))
		record(t, db, many(3)...)
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Hour))
		sweep(t, db)
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, 2*time.Hour))
		var keys []subscriber.Key
		for _, ev := range many(3) {
			keys = append(keys, key(ev.Inside))
		}
		if kept, err := db.RefuseRemovals(t.Context(), keys); err != nil || len(kept) != 3 {
			t.Fatalf("refused %d, %v", len(kept), err)
		}
		sweep(t, db)
		if n, _ := heldCount(t, db, subscriber.ReasonNASRestart); n != 3 {
			t.Errorf("the newer restart holds %d, want 3", n)
		}
	})
}

// TestInterruptedSweep_DEL13: after an interrupted sweep the rest is not ended because it
// is small.
func TestInterruptedSweep_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		limits := guard.Limits{Minimum: 2, Window: time.Hour}
		db := newDB(t, client, guarded(limits))
		record(t, db, many(5)...)
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Hour))
		halfway := &pendingRestart{
			nases: db.nases, now: db.now, nas: many(1)[0].NASOnly(), held: true,
			since: codec.ParseRestart(client.Get(t.Context(), codec.RestartKey("default", many(1)[0].SessionID)).Val()),
		}
		g, err := db.group("default")
		if err != nil {
			t.Fatal(err)
		}
		var txns []*txn.Txn
		for _, ev := range many(4) {
			s := halfway.endTxn(g, ev.Inside)
			txns = append(txns, &s)
		}
		if err := db.performAll(t.Context(), txns); err != nil {
			t.Fatal(err)
		}
		sweep(t, newDB(t, client, guarded(limits)))
		if n, all := heldCount(t, db, subscriber.ReasonNASRestart); n != 5 || all != 5 {
			t.Errorf("%d of %d are held, want 5 of 5", n, all)
		}
	})
}

// TestPassedRestartStaysPassed_DEL13: the guard is asked about a restart once, also if the
// sweep starts again.
func TestPassedRestartStaysPassed_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, guarded(guard.Limits{Minimum: 3, Window: time.Hour}))
		record(t, db, many(3)...)
		record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Hour))
		g, err := db.group("default")
		if err != nil {
			t.Fatal(err)
		}
		pending, err := db.readRestarts(t.Context(), g, []string{codec.NASRef(many(1)[0].SessionID)})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.checkLimits(t.Context(), g, pending); err != nil { // and then Redis fails
			t.Fatal(err)
		}
		sweep(t, db)
		if n, all := heldCount(t, db, subscriber.ReasonNASRestart); n != 0 || all != 0 {
			t.Errorf("%d of %d are held, want none of none", n, all)
		}
	})
}

// TestForeignNASAfterStart_SES16: the client of a NAS is learned from Interims too; the log
// has one line for many events, the counter has each.
func TestForeignNASAfterStart_SES16(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		record(t, newDB(t, client), start("a", addr, 0))
		var seen verdicts
		log := new(lines)
		now := t0
		db := newDB(t, client, func(o *Options) {
			o.OnVerdict, o.Logger, o.Now = seen.observe, log.logger(), func() time.Time { return now }
		})
		record(t, db, interim("a", addr, time.Minute))
		on := event(subscriber.EventAccountingOn, "", noAddr, time.Hour)
		on.Client = "bng2"
		record(t, db, slices.Repeat([]subscriber.Event{on}, 10)...)
		now = now.Add(repeatInterval)
		record(t, db, on)
		counted := 0
		for _, v := range seen.seen {
			if v == subscriber.ForeignNAS {
				counted++
			}
		}
		if counted != 11 {
			t.Errorf("%d were counted, want 11", counted)
		}
		if got := log.with("restart of a NAS that another client reports"); len(got) != 2 || got[1]["suppressed"] != int64(9) {
			t.Errorf("the log has %v, want two lines, nine left out between them", got)
		}
	})
}

// TestHoldInCluster_DEL13: suspending removals uses one slot at a time.
func TestHoldInCluster_DEL13(t *testing.T) {
	client := startCluster(t)
	db := newDB(t, client, guarded(guard.Limits{Window: time.Hour}))
	setMarker(t, db, "default")
	setMarker(t, db, "other")
	record(t, db, start("a", addr, 0), start("b", away, 0))
	records := []subscriber.Record{known(t, db, addr), known(t, db, away)}
	for _, r := range records {
		if err := client.Del(context.Background(), codec.RecordKey(r.Group, r.Inside)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	gone := missing(t, db, records...)
	if len(gone) != 2 {
		t.Fatalf("missing %+v", gone)
	}
	if err := db.SuspendRemovals(t.Context(), []subscriber.Ending{gone[addr].Ending, gone[away].Ending}); err != nil {
		t.Fatal(err)
	}
	keys := []subscriber.Key{key(addr), key(away)}
	if kept, err := db.RefuseRemovals(t.Context(), keys); err != nil || len(kept) != 2 {
		t.Errorf("refused %d, %v", len(kept), err)
	}
	record(t, db, event(subscriber.EventAccountingOn, "", noAddr, time.Hour))
	sweep(t, db)
	if ended, err := db.ConfirmRemovals(t.Context(), keys); err != nil || len(ended) != 1 {
		t.Errorf("confirmed %d, %v, want the one in the guarded group", len(ended), err)
	}
}

// BenchmarkHold measures a mass loss: missing records are found, and their removals
// suspended and refused. One operation is one record.
func BenchmarkHold(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	db := benchDB(b, client)
	setMarker(b, db, "default")
	const n = 100_000
	for first := 0; first < n; first += 512 {
		recordN(b, db, subscriber.EventStart, first, 512, 0)
	}
	var all []subscriber.Record
	err := db.Records(b.Context(), "default", func(batch []subscriber.Record) error {
		all = append(all, batch...)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]subscriber.Key, len(all))
	for i := range all {
		keys[i] = all[i].Key
	}
	for b.Loop() {
		b.StopTimer()
		for i := range keys {
			client.Del(b.Context(), codec.RecordKey("default", keys[i].Inside))
		}
		b.StartTimer()
		gone, err := db.FindMissing(b.Context(), all, subscriber.ReasonNone)
		if err != nil || len(gone) != len(all) {
			b.Fatalf("%d missing, %v", len(gone), err)
		}
		endings := make([]subscriber.Ending, len(gone))
		for i := range gone {
			endings[i] = gone[i].Ending
		}
		if err := db.SuspendRemovals(b.Context(), endings); err != nil {
			b.Fatal(err)
		}
		if kept, err := db.RefuseRemovals(b.Context(), keys); err != nil || len(kept) != len(all) {
			b.Fatalf("%d refused, %v", len(kept), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(all)), "µs/record")
}
