package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
	"github.com/sessiond/sessiond/internal/testenv"
)

func crowded(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(1 + i>>8), byte(i)}) }

// startCrowd brings n sessions of one NAS online, and returns their records.
func startCrowd(t *testing.T, db *DB, n int) []subscriber.Record {
	t.Helper()
	events := make([]subscriber.Event, n)
	for i := range events {
		events[i] = start(fmt.Sprint("s", i), crowded(i), 0)
	}
	record(t, db, events...)
	records := make([]subscriber.Record, n)
	for i := range records {
		records[i] = known(t, db, crowded(i))
	}
	return records
}

// entries returns the feed entries after a given one.
func entries(t *testing.T, db *DB, after string) []redis.XMessage {
	t.Helper()
	list, err := db.client.XRange(t.Context(), codec.FeedKey("default"), "("+after, "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestEndsInBatches_SES15: the ends by a NAS restart or an operator share few feed entries,
// and each is as complete as an end alone.
func TestEndsInBatches_SES15(t *testing.T) {
	const n = 300
	for name, tt := range map[string]struct {
		why subscriber.Reason
		end func(t *testing.T, db *DB, records []subscriber.Record)
	}{
		"restart": {subscriber.ReasonNASRestart, func(t *testing.T, db *DB, _ []subscriber.Record) {
			record(t, db, event(subscriber.EventAccountingOff, "", noAddr, time.Hour))
			sweep(t, db)
		}},
		"person": {subscriber.ReasonAdmin, func(t *testing.T, db *DB, records []subscriber.Record) {
			keys := make([]subscriber.Key, len(records))
			for i := range records {
				keys[i] = records[i].Key
			}
			ended, err := db.Delete(t.Context(), keys, subscriber.ReasonAdmin, nil)
			if err != nil || len(ended) != n || ended[0].Inside != records[0].Inside {
				t.Errorf("%d deleted, %v", len(ended), err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
				db := newDB(t, client)
				records := startCrowd(t, db, n)
				tail, _ := db.Tail(t.Context(), "default")
				tt.end(t, db, records)
				told := 0
				for _, e := range entries(t, db, tail) {
					if e.Values["kind"] != "stopped" {
						continue
					}
					told++
					if e.Values["reason"] != tt.why.String() {
						t.Errorf("entry %v", e.Values)
					}
				}
				if told == 0 || told > n/txn.BatchSize+4 {
					t.Errorf("%d entries tell of %d ends", told, n)
				}
				list := changes(t, db, "default")
				ends := 0
				for i, c := range list {
					if c.Kind != subscriber.Deleted {
						continue
					}
					ends++
					if c.Reason != tt.why || c.Cause != 0 || c.Record.UserName == "" {
						t.Errorf("change %d: %+v", i, c)
					}
				}
				if left := client.HLen(t.Context(), codec.OnlineKey("default")).Val(); ends != n || left != 0 {
					t.Errorf("%d ends told, %d online entries left", ends, left)
				}
				for i := range records {
					r := &records[i]
					line := client.Get(t.Context(), codec.SessionKey("default", r.SessionID)).Val()
					state, err := codec.ParseState(line)
					if err != nil || state.Phase != subscriber.Closed || state.Reason != tt.why || state.Inside != r.Inside || online(t, db, r.Inside) != "" {
						t.Fatalf("state %q of %v, online %q", line, r.Inside, online(t, db, r.Inside))
					}
				}
			})
		})
	}
}

// TestEndIsDecidedAgain_I4: a record that changed after it was read is not ended with its
// batch, but decided again; the others are.
func TestEndIsDecidedAgain_I4(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		records := startCrowd(t, db, 3)
		record(t, db, interim("s0", crowded(0), 2*time.Hour), interim("s1", crowded(1), time.Minute))
		p := &pendingRestart{nases: db.nases, now: db.now, nas: records[0].SessionID, since: subscriber.Restart{At: t0.Add(time.Hour), ID: "1-0"}}
		txns := make([]*txn.Txn, len(records))
		for i := range records { // with guesses from before the Interims
			s := p.endTxn(&db.inForce().groups[0], records[i].Inside)
			txns[i] = &s
			txns[i].Guess(&records[i])
		}
		ended, err := db.endAll(t.Context(), txns)
		if err != nil || len(ended) != 2 {
			t.Fatalf("ended %+v, %v", ended, err)
		}
		for i, want := range []string{"s0", "", ""} {
			if got := online(t, db, crowded(i)); got != want {
				t.Errorf("%q is online at %v, want %q", got, crowded(i), want)
			}
		}
		if !ended[0].UpdatedAt.Equal(t0.Add(time.Minute)) {
			t.Errorf("ended as of %v, before its last Interim", ended[0].UpdatedAt)
		}
	})
}

// short configures a feed that keeps few entries that all readers have read.
func short(o *Options) { o.FeedLength, o.FeedLimit = 100, 100_000 }

func trim(t *testing.T, db *DB) {
	t.Helper()
	if err := db.trimAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func interims(t *testing.T, db *DB, from, n int) {
	t.Helper()
	for i := range n {
		record(t, db, interim("a", addr, time.Duration(from+i)*time.Second))
	}
}

func unreadBehind(t *testing.T, db *DB, entry string) int {
	t.Helper()
	list, _, err := db.Feed(t.Context(), "default", entry, 10_000, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestFeedKeepsUnread: a feed is trimmed behind its slowest reader, and no more.
func TestFeedKeepsUnread(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, short)
		record(t, db, start("a", addr, 0))
		slow, _ := db.Tail(t.Context(), "default")
		for _, reader := range []string{"slow", "fast"} {
			if err := db.Join(t.Context(), "default", reader, slow); err != nil {
				t.Fatal(err)
			}
		}
		tell := func(reader, entry string) {
			t.Helper()
			if err := db.TellPosition(t.Context(), "default", reader, entry); err != nil {
				t.Fatal(err)
			}
			trim(t, db)
		}
		interims(t, db, 1, 1000)
		fast, _ := db.Tail(t.Context(), "default")
		tell("fast", fast)
		if n := unreadBehind(t, db, slow); n != 1000 {
			t.Errorf("the slow reader finds %d changes of 1000", n)
		}
		if err := db.Join(t.Context(), "default", "slow", fast); err != nil { // it has joined already
			t.Fatal(err)
		}
		trim(t, db)
		if n := unreadBehind(t, db, slow); n != 1000 {
			t.Errorf("after it joined again the slow reader finds %d changes of 1000", n)
		}
		interims(t, db, 1001, 50)
		tell("slow", fast)
		if n := unreadBehind(t, db, fast); n != 50 {
			t.Errorf("both find %d changes of 50", n)
		}
		// Redis trims whole nodes of the stream.
		if n := client.XLen(t.Context(), codec.FeedKey("default")).Val(); n > 100+200 {
			t.Errorf("%d entries are kept that both have read", n-50)
		}
		if lost, err := db.RolledBack(t.Context(), "default", fast); lost || err != nil {
			t.Errorf("rewound %v, %v", lost, err)
		}
	})
}

// TestDeadReaderIsForgotten: no entries are kept for a reader without a report for longer
// than the TTL of tombstones.
func TestDeadReaderIsForgotten(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client, short)
		record(t, db, start("a", addr, 0))
		old, _ := db.Tail(t.Context(), "default")
		silent := time.Now().Add(-readerLife - time.Minute).UnixMilli()
		client.HSet(t.Context(), codec.ReadersKey("default"), "dead", fmt.Sprint(old, " ", silent), "odd", "nonsense")
		interims(t, db, 1, 1000)
		now, _ := db.Tail(t.Context(), "default")
		if err := db.TellPosition(t.Context(), "default", "live", now); err != nil {
			t.Fatal(err)
		}
		trim(t, db)
		if n := client.XLen(t.Context(), codec.FeedKey("default")).Val(); n > 300 {
			t.Errorf("%d entries are kept for a dead reader", n)
		}
		if readers := client.HKeys(t.Context(), codec.ReadersKey("default")).Val(); !slices.Equal(readers, []string{"live"}) {
			t.Errorf("readers %v", readers)
		}
	})
}

// TestFeedHasABound_I10: a reader that is too far behind does not make the feed exceed its
// bound, in entries and in octets; the reader gets ErrFeedGap.
func TestFeedHasABound_I10(t *testing.T) {
	for name, bound := range map[string]func(*Options){
		"entries": func(o *Options) { o.FeedLength, o.FeedLimit = 100, 300 },
		"octets":  func(o *Options) { o.FeedLength, o.FeedOctets = 100, 20_000 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := redistest.Start(t)
			db := newDB(t, client, bound)
			record(t, db, start("a", addr, 0))
			behind, _ := db.Tail(t.Context(), "default")
			if err := db.Join(t.Context(), "default", "behind", behind); err != nil {
				t.Fatal(err)
			}
			interims(t, db, 1, 1000)
			trim(t, db)
			if n := client.XLen(t.Context(), codec.FeedKey("default")).Val(); n > 500 {
				t.Errorf("%d entries stand", n)
			}
			if fill := db.FeedFill("default"); fill < 0.9 {
				t.Errorf("the feed is said to be filled to %v", fill)
			}
			if _, _, err := db.Feed(t.Context(), "default", behind, 10, 0, nil); !errors.Is(err, ErrFeedGap) {
				t.Errorf("the reader finds %v, want a gap", err)
			}
		})
	}
}

// TestProducersWait: a producer that ends many sessions waits for a slow reader while the
// feed is full, and accounting does not.
func TestProducersWait(t *testing.T) {
	t.Parallel()
	db := newDB(t, redistest.Start(t), func(o *Options) { o.FeedLength, o.FeedLimit = 10, 600 })
	records := startCrowd(t, db, 600)
	if err := db.TellPosition(t.Context(), "default", "behind", "1-0"); err != nil {
		t.Fatal(err)
	}
	interims(t, db, 1, 1)
	for i := range 400 {
		record(t, db, interim("s0", crowded(0), time.Duration(i)*time.Second))
	}
	task(t, db.TrimFeeds)
	testenv.Eventually(t, "the feed to be full", func() bool { return db.FeedFill("default") > producersWait })
	keys := make([]subscriber.Key, len(records))
	for i := range records {
		keys[i] = records[i].Key
	}
	done := make(chan error, 1)
	go func() {
		_, err := db.Delete(t.Context(), keys, subscriber.ReasonAdmin, nil)
		done <- err
	}()
	testenv.Eventually(t, "the producer to wait", func() bool {
		db.states.mu.Lock()
		defer db.states.mu.Unlock()
		return db.states.next != nil
	})
	record(t, db, interim("s1", crowded(1), time.Hour))
	select {
	case err := <-done:
		t.Fatalf("the producer went on before it was read, %v", err)
	default:
	}
	testenv.Eventually(t, "the producer to go on", func() bool {
		tail, _ := db.Tail(t.Context(), "default")
		if err := db.TellPosition(t.Context(), "default", "behind", tail); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			done <- err
			return true
		default:
			return false
		}
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPatienceEnds: a producer waits no longer than readerPatience for a reader that does
// not catch up, and not at all while no feeds are trimmed.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f changeFeed
		full := feedState{fill: producersWait, lag: readerBehind}
		f.states.set("default", full)
		began := time.Now()
		f.awaitReaders(t.Context(), "default")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v though nobody looks at the feeds", waited)
		}
		f.states.watch(true)
		f.awaitReaders(t.Context(), "other")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v for another group", waited)
		}
		f.awaitReaders(t.Context(), "default")
		if waited := time.Since(began); waited != readerPatience {
			t.Errorf("waited %v", waited)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began = time.Now()
		f.awaitReaders(ctx, "default")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v though nobody wants it", waited)
		}
	})
}

// TestGapTellsWhy_DEL13: where the feed does not have an end any more, the session state
// gives the reason, except for removals by other programs.
func TestGapTellsWhy_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		if err := db.SetMarker(t.Context(), "default", Marker{Epoch: "e"}); err != nil {
			t.Fatal(err)
		}
		records := startCrowd(t, db, 7)
		hand := subscriber.Record{Key: key(crowded(9)), UserName: "by hand"}
		hand, err := db.Put(t.Context(), hand)
		if err != nil {
			t.Fatal(err)
		}
		deleteOne := func(k subscriber.Key) {
			if _, err := db.Delete(t.Context(), []subscriber.Key{k}, subscriber.ReasonAdmin, nil); err != nil {
				t.Fatal(err)
			}
		}
		record(t, db, stop("s0", crowded(0), time.Hour))
		deleteOne(records[1].Key)
		deleteOne(hand.Key)
		record(t, db, start("new", crowded(2), time.Hour), stop("new", crowded(2), 2*time.Hour))
		record(t, db, start("s3", crowded(20), time.Hour)) // moves within the group
		record(t, db, start("s4", away, time.Hour))        // moves to another group
		remove(t, db, crowded(5))
		record(t, db, event(subscriber.EventAccountingOff, "", noAddr, 30*time.Minute))
		sweep(t, db)
		client.Del(t.Context(), codec.FeedKey("default"))
		want := map[netip.Addr]subscriber.Reason{
			crowded(0): subscriber.ReasonStop, crowded(1): subscriber.ReasonAdmin,
			crowded(2): subscriber.ReasonSuperseded, crowded(3): subscriber.ReasonSuperseded,
			crowded(4): subscriber.ReasonSuperseded, crowded(6): subscriber.ReasonNASRestart,
			crowded(9): subscriber.ReasonAdmin,
		}
		found := missing(t, db, append(records, hand)...)
		for inside, why := range want {
			if a := found[inside]; !a.Past || !a.Over || a.Told || a.Reason != why {
				t.Errorf("%v: %+v, want that it ended for %v", inside, a, why)
			}
		}
		if a := found[crowded(5)]; a.Past || a.Over || a.Reason != subscriber.ReasonRemovedInDatabase {
			t.Errorf("removed by others: %+v", a)
		}
		if len(found) != len(want)+1 {
			t.Errorf("%d are missing: %+v", len(found), found)
		}
	})
}

// TestGapAfterAbsence_DEL13: a daemon that was down has only its bindings. The ends of
// their sessions are found, but not those of earlier sessions under the same identifier.
func TestGapAfterAbsence_DEL13(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		if err := db.SetMarker(t.Context(), "default", Marker{Epoch: "e"}); err != nil {
			t.Fatal(err)
		}
		records := startCrowd(t, db, 3)
		record(t, db, stop("s0", crowded(0), time.Hour), stop("s1", crowded(1), time.Hour))
		remove(t, db, crowded(2))
		client.HDel(t.Context(), codec.OnlineKey("default"), crowded(2).String())
		client.Del(t.Context(), codec.FeedKey("default"))
		bound := make([]subscriber.Record, len(records))
		for i, r := range records {
			since := t0.Add(time.Minute)
			if i == 1 {
				since = t0.Add(2 * time.Hour) // after the end of the previous session
			}
			bound[i] = subscriber.Record{
				Key: r.Key, SessionID: subscriber.SessionID{AcctSessionID: r.AcctSessionID},
				UserName: r.UserName, Version: fmt.Sprintf("%d-0", since.UnixMilli()),
			}
		}
		found := missing(t, db, bound...)
		if a := found[crowded(0)]; !a.Past || a.Reason != subscriber.ReasonStop {
			t.Errorf("stopped: %+v", a)
		}
		for _, inside := range []netip.Addr{crowded(1), crowded(2)} {
			if a := found[inside]; a.Past || a.Over || a.Reason != subscriber.ReasonRemovedInDatabase {
				t.Errorf("%v: %+v, want that nothing tells of its end", inside, a)
			}
		}
	})
}

// TestEarlierSessionTellsNothing_DEL13: the end of a session does not count for a later one
// with the same identifier.
func TestEarlierSessionTellsNothing_DEL13(t *testing.T) {
	t.Parallel()
	r := subscriber.Record{Key: key(addr), StartedAt: t0.Add(time.Hour)}
	state := subscriber.SessionState{Phase: subscriber.Closed, Inside: addr, Start: t0, End: t0.Add(time.Minute), Reason: subscriber.ReasonStop}
	if why := endedFor(&state, &r); why != subscriber.ReasonNone {
		t.Errorf("ended for %v before it began", why)
	}
	state.End = t0.Add(2 * time.Hour)
	if why := endedFor(&state, &r); why != subscriber.ReasonStop {
		t.Errorf("ended for %v, want STOP", why)
	}
}

// TestTrimInSteps: no call trims many entries, however many there are to trim.
func TestTrimInSteps(t *testing.T) {
	client := redistest.Start(t)
	db := newDB(t, client, func(o *Options) { o.FeedLength = 100 })
	fill := redis.NewScript(`for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'kind', 'stopped') end`)
	if err := fill.Run(t.Context(), client, []string{codec.FeedKey("default")}, 4*trimStep).Err(); err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	g, err := db.group("default")
	if err != nil {
		t.Fatal(err)
	}
	before := client.XLen(t.Context(), g.txns.Feed).Val()
	if _, more, err := db.trimOnce(t.Context(), g); err != nil || !more {
		t.Fatalf("more to take off: %v, %v", more, err)
	}
	if off := before - client.XLen(t.Context(), g.txns.Feed).Val(); off < trimStep/2 || off > trimStep {
		t.Errorf("one call took off %d entries", off)
	}
	if err := db.trimFeed(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if n := client.XLen(t.Context(), g.txns.Feed).Val(); n > 100+100 {
		t.Errorf("%d entries are left", n)
	}
}
