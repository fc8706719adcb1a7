package bindings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nat/nattest"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// logWorld is a Store that logs, with a clock that tests set.
type logWorld struct {
	*Store
	t      testing.TB
	client redis.UniversalClient
	now    time.Time
}

func newLogWorld(t testing.TB, client redis.UniversalClient) *logWorld {
	w := &logWorld{t: t, client: client, now: t0}
	w.Store = New(Options{
		Client: redisconn.New(client, Scripts()...), Groups: func() []string { return []string{"default"} }, Log: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: func() time.Time { return w.now },
	})
	return w
}

// save writes bindings, and reports whether the log began anew.
func (w *logWorld) save(list ...LoggedWrite) bool {
	w.t.Helper()
	anew, err := w.SaveLogged(context.Background(), "default", list)
	if err != nil {
		w.t.Fatal(err)
	}
	return anew
}

// whole marks the log as whole.
func (w *logWorld) whole() {
	w.t.Helper()
	if err := w.MarkLogWhole(context.Background(), "default", w.end().Epoch); err != nil {
		w.t.Fatal(err)
	}
}

func (w *logWorld) end() LogState {
	w.t.Helper()
	end, err := w.NATLogEnd(context.Background(), "default")
	if err != nil {
		w.t.Fatal(err)
	}
	return end
}

// start is the position before the first event.
func (w *logWorld) start() LogPosition { return LogPosition{Epoch: w.end().Epoch, Entry: beginning} }

// events reads the whole log, in reads of some entries.
func (w *logWorld) events() (all []nat.Event) {
	w.t.Helper()
	for at := w.start(); ; {
		list, next, err := w.NATLog(context.Background(), "default", at, 7, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		if next == at {
			return all
		}
		all, at = append(all, list...), next
	}
}

// live returns the blocks in service by the log.
func (w *logWorld) live() (all []nat.Event) {
	w.t.Helper()
	_, err := w.NATLive(context.Background(), "default", func(list []nat.Event) error {
		all = append(all, list...)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// logged returns a write of a binding of one block, which is in service since at.
func logged(outside netip.Addr, first nat.Port, user string, at time.Time) LoggedWrite {
	b := named(outside, first, user)
	b.State, b.AllocatedAt = nat.Active, at
	return LoggedWrite{Binding: &b, Holder: &nat.Identity{Inside: b.Inside, UserName: user, Client: "bng1", NAS: "nas1"}}
}

// held returns the write that puts a binding into its hold.
func held(x LoggedWrite, left time.Time) LoggedWrite {
	b := *x.Binding
	b.State, b.ReleasedAt, b.HoldUntil = nat.Held, left, left.Add(time.Minute)
	return LoggedWrite{Binding: &b, Left: left}
}

func removed(x LoggedWrite) LoggedWrite { return LoggedWrite{Binding: x.Binding, Remove: true} }

// told is an event, in short.
type told struct {
	kind  nat.EventKind
	user  string
	first nat.Port
	at    time.Duration // since t0
	since time.Duration
}

func tell(list []nat.Event) (short []told) {
	for _, e := range list {
		x := told{e.Kind, e.Holder.UserName, e.First, e.At.Sub(t0), 0}
		if e.Kind == nat.Released {
			x.since = e.Since.Sub(t0)
		}
		short = append(short, x)
	}
	return short
}

func (w *logWorld) want(what string, want ...told) {
	w.t.Helper()
	if got := tell(w.events()); !slices.Equal(got, want) {
		w.t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// TestEventsOfABinding_LOG06: the steps of a binding's life, each of them written twice as after a
// lost answer, give each event once.
func TestEventsOfABinding_LOG06(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		w := newLogWorld(t, client)
		twice := func(list ...LoggedWrite) {
			t.Helper()
			w.save(list...)
			w.now = w.now.Add(time.Second)
			w.save(list...)
		}
		at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
		a := logged(outsideAt(1), 1024, "alice", at(0))
		twice(a)
		w.whole()
		drains := a
		b := *a.Binding
		b.State, b.ReleasedAt = nat.Draining, at(5)
		drains.Binding = &b
		twice(drains)
		twice(held(a, at(7)))
		twice(removed(a))
		w.want("a life", told{nat.Allocated, "alice", 1024, 0, 0}, told{nat.Released, "alice", 1024, 7 * time.Second, 0})

		// Another binding of the place, with a block more that goes again.
		x := logged(outsideAt(1), 1024, "bob", at(20))
		twice(x)
		grown := x
		g := *x.Binding
		g.Blocks, _ = g.With(nat.Block{Outside: g.Outside, First: 2048, Last: 2559})
		g.GrownAt = at(25)
		grown.Binding = &g
		twice(grown)
		shrunk := x
		shrunk.Left = at(30)
		twice(shrunk)
		w.want("growth", told{nat.Allocated, "alice", 1024, 0, 0}, told{nat.Released, "alice", 1024, 7 * time.Second, 0},
			told{nat.Allocated, "bob", 1024, 20 * time.Second, 0}, told{nat.Allocated, "bob", 2048, 25 * time.Second, 0},
			told{nat.Released, "bob", 2048, 30 * time.Second, 25 * time.Second})
		if live := tell(w.live()); len(live) != 1 || live[0].user != "bob" || live[0].first != 1024 {
			t.Errorf("in service: %v", live)
		}

		// Its hold and removal were written together with the next binding of the place.
		next := logged(outsideAt(1), 1024, "carol", at(40))
		next.Left = at(38)
		twice(next)
		if got := tell(w.events())[5:]; !slices.Equal(got, []told{{nat.Released, "bob", 1024, 38 * time.Second, 20 * time.Second}, {nat.Allocated, "carol", 1024, 40 * time.Second, 0}}) {
			t.Errorf("superseded: %v", got)
		}

		// Its holder's session changes, and then less is known of it.
		renamed := next
		renamed.Holder = &nat.Identity{Inside: addr, UserName: "carol", AcctSessionID: "2", NAS: "nas2"}
		twice(renamed)
		renamed.Holder = nil
		twice(renamed)
		if live := w.live(); len(live) != 1 || live[0].Holder.NAS != "nas2" || live[0].Holder.AcctSessionID != "2" {
			t.Errorf("in service: %+v", live)
		}
		if n := len(w.events()); n != 7 {
			t.Errorf("%d events", n)
		}
	})
}

// TestClockIsSetBack_LOG08: a block that was released under a clock that was ahead is not
// allocated before that, and no event of a binding is written twice for it.
func TestClockIsSetBack_LOG08(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		w := newLogWorld(t, client)
		a := logged(outsideAt(1), 1024, "alice", t0.Add(time.Hour))
		w.save(a)
		w.whole()
		w.save(held(a, t0.Add(time.Hour+time.Second)))
		w.save(removed(a))
		b := logged(outsideAt(1), 1024, "bob", t0.Add(time.Minute))
		w.save(b)
		w.save(b)
		list, err := w.NotLogged(t.Context(), "default", []nat.Binding{*b.Binding})
		if err != nil || len(list) > 0 {
			t.Errorf("the log does not have %v, %v", list, err)
		}
		w.save(held(b, t0.Add(2*time.Minute)))
		const back = time.Hour + time.Second
		w.want("clock", told{nat.Allocated, "alice", 1024, time.Hour, 0}, told{nat.Released, "alice", 1024, back, time.Hour},
			told{nat.Allocated, "bob", 1024, back, 0}, told{nat.Released, "bob", 1024, back, back})
	})
}

// TestLogBeginsAnew: a log that lost a part of its keys, or whose database was emptied, begins with
// another epoch; then bindings that are in force have their own times. A reader is told of the gap.
func TestLogBeginsAnew(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		w := newLogWorld(t, client)
		a, b := logged(outsideAt(1), 1024, "alice", t0), logged(outsideAt(2), 1024, "bob", t0.Add(time.Hour))
		for i, lose := range []func() error{
			func() error { return client.FlushAll(t.Context()).Err() },
			func() error { return client.Del(t.Context(), codec.NATLogBlocksKey("default")).Err() },
			func() error { return client.Del(t.Context(), codec.NATLogHeadKey("default")).Err() },
		} {
			w.save(a, b)
			w.whole()
			before, epoch := w.end().LogPosition, w.end().Epoch
			if err := lose(); err != nil {
				t.Fatal(err)
			}
			a.Known, b.Known = true, true
			if !w.save(b) {
				t.Errorf("loss %d: the log did not begin anew", i)
			}
			if w.save(a) {
				t.Errorf("loss %d: it began anew twice", i)
			}
			if _, err := w.NATLive(t.Context(), "default", func([]nat.Event) error { return nil }); !errors.Is(err, ErrLogNotWhole) {
				t.Errorf("loss %d: live blocks of half a log: %v", i, err)
			}
			w.whole()
			if w.end().Epoch == epoch {
				t.Errorf("loss %d: the epoch stayed", i)
			}
			w.want(fmt.Sprint("loss ", i), told{nat.Allocated, "bob", 1024, time.Hour, 0}, told{nat.Allocated, "alice", 1024, 0, 0})
			if _, _, err := w.NATLog(t.Context(), "default", before, 10, 0); !errors.Is(err, ErrLogGap) {
				t.Errorf("loss %d: a reader of the former log got %v", i, err)
			}
			a.Known, b.Known = false, false
		}
		// A database that went back in time has the epoch, and another event at the position.
		w.save(held(a, t0))
		ahead := w.end().LogPosition
		client.XDel(t.Context(), codec.NATLogKey("default"), ahead.Entry)
		if _, _, err := w.NATLog(t.Context(), "default", ahead, 10, 0); !errors.Is(err, ErrLogGap) {
			t.Errorf("behind an entry that is gone: %v", err)
		}
	})
}

// TestPoisonedLog: a stream that takes no entry, or is no stream, keeps no binding from being stored.
func TestPoisonedLog(t *testing.T) {
	client := redistest.Start(t)
	w := newLogWorld(t, client)
	key := codec.NATLogKey("default")
	for _, poison := range []func() error{
		func() error {
			return client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "18446744073709551615-18446744073709551615", Values: []string{"a", "b"}}).Err()
		},
		func() error { return client.Set(t.Context(), key, "no stream", 0).Err() },
	} {
		w.save(logged(outsideAt(1), 1024, "alice", w.now))
		w.whole()
		epoch := w.end().Epoch
		client.Del(t.Context(), key)
		if err := poison(); err != nil {
			t.Fatal(err)
		}
		w.save(logged(outsideAt(2), 1024, "bob", w.now.Add(time.Second)))
		if now := w.end(); now.Epoch == epoch || !now.Whole || len(w.live()) != 2 {
			t.Errorf("now %+v, before %s", now, epoch)
		}
		w.save(removed(logged(outsideAt(1), 1024, "", t0)), removed(logged(outsideAt(2), 1024, "", t0)))
	}
}

// TestLogEndsWithoutWriters: the first write of a daemon that does not log ends the log.
func TestLogEndsWithoutWriters(t *testing.T) {
	client := redistest.Start(t)
	w := newLogWorld(t, client)
	w.save(logged(outsideAt(1), 1024, "alice", t0))
	if err := newStore(client).SaveBindings(t.Context(), "default", []nat.Binding{named(outsideAt(2), 1024, "bob")}, nil); err != nil {
		t.Fatal(err)
	}
	if keys := client.Keys(t.Context(), "*natlog*").Val(); len(keys) > 0 {
		t.Errorf("left are %v", keys)
	}
}

// TestLogWalk_LOG06_LOG08: after random writes of bindings with one block and several, repeated ones, under
// a clock that steps, every allocation has one release or is in service, no two intervals of a port
// overlap, and the blocks in service are those of the rows.
func TestLogWalk_LOG06_LOG08(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		for seed := range uint64(6) {
			client.FlushAll(t.Context())
			walkLog(t, client, rand.New(rand.NewPCG(seed, 15)))
		}
	})
}

func walkLog(t *testing.T, client redis.UniversalClient, random *rand.Rand) {
	t.Helper()
	w := newLogWorld(t, client)
	w.save()
	rows := map[nat.Place]LoggedWrite{}
	for range 150 {
		w.now = w.now.Add(time.Duration(random.IntN(2_000_000)-500_000) * time.Microsecond)
		batch := map[nat.Place]LoggedWrite{}
		for range 1 + random.IntN(8) {
			x := someWrite(random, rows, w.now)
			if _, twice := batch[x.Place()]; !twice && !collides(x, rows, batch) {
				batch[x.Place()] = x
			}
		}
		var list []LoggedWrite
		for p, x := range batch {
			list = append(list, x)
			if rows[p] = x; x.Remove {
				delete(rows, p)
			}
		}
		for range 1 + random.IntN(2) {
			w.save(list...)
		}
	}
	w.whole()
	var times nattest.Intervals
	for _, e := range w.events() {
		if err := times.Add(&e); err != nil {
			t.Fatal(err)
		}
	}
	open := times.Open()
	for _, x := range rows {
		if x.State == nat.Held {
			continue
		}
		for b := range x.All() {
			if e, ok := open[b]; !ok || e.Holder.UserName != x.UserName {
				t.Errorf("block %v of %q is in service, by the log: %+v, %v", b, x.UserName, e, ok)
			}
			delete(open, b)
		}
	}
	if len(open) > 0 {
		t.Errorf("in service by the log alone: %v", open)
	}
	if list, err := w.NotLogged(t.Context(), "default", bindingsOf(rows)); err != nil || len(list) > 0 {
		t.Errorf("the log does not have %v, %v", list, err)
	}
	places := 0
	if err := w.LoggedPlaces(t.Context(), "default", func(list []nat.Place) error {
		for _, p := range list {
			if x, ok := rows[p]; !ok || x.State == nat.Held {
				t.Errorf("the log has %v in service", p)
			}
		}
		places += len(list)
		return nil
	}); err != nil || w.client.HLen(t.Context(), codec.NATLogBlocksKey("default")).Val() != int64(places) {
		t.Errorf("%d places, %v", places, err)
	}
}

func bindingsOf(rows map[nat.Place]LoggedWrite) (list []nat.Binding) {
	for _, x := range rows {
		list = append(list, *x.Binding)
	}
	return list
}

// someWrite returns the next write of a random place.
func someWrite(random *rand.Rand, rows map[nat.Place]LoggedWrite, now time.Time) LoggedWrite {
	fresh := logged(outsideAt(random.IntN(3)), nat.Port(1024+512*random.IntN(4)), fmt.Sprint("user", random.IntN(1000)), now)
	x, ok := rows[fresh.Place()]
	x.Left = now
	b := nat.Binding{}
	if ok {
		b = *x.Binding
	}
	switch n := random.IntN(6); {
	case !ok, n == 0: // also: taken over
		fresh.Left = now
		return fresh
	case n == 1:
		return removed(x)
	case n == 2:
		return held(x, now)
	case n == 3 && x.State != nat.Held:
		for first := nat.Port(1024); first < 1024+512*4; first += 512 {
			if more, fits := b.With(nat.Block{Outside: b.Outside, First: first, Last: first + 511}); fits {
				b.Blocks, b.GrownAt = more, now
				break
			}
		}
	case n == 4 && b.Len() > 1:
		b.Blocks = b.Older()
	}
	x.Binding = &b
	return x
}

// collides reports whether a write would give a block in use by another binding.
func collides(x LoggedWrite, rows, batch map[nat.Place]LoggedWrite) bool {
	if x.Remove || x.State == nat.Held {
		return false
	}
	for _, list := range []map[nat.Place]LoggedWrite{rows, batch} {
		for p, y := range list {
			if p == x.Place() {
				continue
			}
			for b := range x.All() {
				for c := range y.All() {
					if b.Overlaps(c) {
						return true
					}
				}
			}
		}
	}
	return false
}

// TestLogIsKeptForReaders: what a reader has not read stays, within the bound; beyond it events go,
// are counted, and the reader finds a gap.
func TestLogIsKeptForReaders(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		w := newLogWorld(t, client)
		ctx := t.Context()
		w.save()
		start := w.start()
		if err := w.TellLogPosition(ctx, "default", "slow", start); err != nil {
			t.Fatal(err)
		}
		fill := func(n int) {
			for i := range n {
				x := logged(outsideAt(1), 1024, fmt.Sprint(i), w.now)
				w.save(x)
				w.save(held(x, w.now))
			}
		}
		trim := func(most int) LogFill {
			t.Helper()
			for range 20 {
				if err := w.trimLog(ctx, "default", logBounds{most, mostOctets}); err != nil {
					t.Fatal(err)
				}
			}
			return w.NATLogFill("default")
		}
		fill(300)
		if f := trim(1000); f.Unread != 600 || f.Lost != 0 || f.Share < 0.55 || f.Share > 0.65 || len(w.events()) != 600 {
			t.Errorf("kept: %+v", f)
		}
		_, half, err := w.NATLog(ctx, "default", start, 300, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.TellLogPosition(ctx, "default", "slow", half); err != nil {
			t.Fatal(err)
		}
		if f := trim(1000); f.Unread != 300 || f.Lost != 0 || w.client.XLen(ctx, codec.NATLogKey("default")).Val() > 450 {
			t.Errorf("half is read: %+v", f)
		}
		if list, _, err := w.NATLog(ctx, "default", half, 1000, 0); err != nil || len(list) != 300 {
			t.Errorf("%d events, %v", len(list), err)
		}
		fill(500)
		f := trim(800)
		if f.Lost == 0 || f.Unread+f.Lost != 1300 {
			t.Errorf("beyond the bound: %+v", f)
		}
		if _, _, err := w.NATLog(ctx, "default", half, 1000, 0); !errors.Is(err, ErrLogGap) {
			t.Errorf("who was too slow got %v", err)
		}
		if again := trim(800); again.Lost != f.Lost {
			t.Errorf("lost again: %+v", again)
		}
		if err := w.LeaveLog(ctx, "default", "slow"); err != nil {
			t.Fatal(err)
		}
		if trim(800); w.client.XLen(ctx, codec.NATLogKey("default")).Val() > 2*keptEntries {
			t.Error("the log is kept for nobody")
		}
		if err := w.TellLogPosition(ctx, "default", "gone", w.end().LogPosition); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(readerLife + time.Second)
		if trim(800); w.client.HLen(ctx, codec.NATLogReadersKey("default")).Val() != 0 {
			t.Error("a reader that is gone for long is still there")
		}
	})
}

// TestLogPosition: a position comes back from its text.
func TestLogPosition(t *testing.T) {
	p := LogPosition{"ABC", "17-1", 9}
	if got, err := ParseLogPosition(p.String()); err != nil || got != p {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "a/b", "a/1-1/x", "a/1-1/1/1"} {
		if _, err := ParseLogPosition(bad); err == nil {
			t.Errorf("%q is a position", bad)
		}
	}
}

// TestReaderWaits: a read waits for the next event.
func TestReaderWaits(t *testing.T) {
	w := newLogWorld(t, redistest.Start(t))
	w.save()
	read := make(chan []nat.Event, 1)
	start := w.start()
	go func() {
		list, _, _ := w.NATLog(t.Context(), "default", start, 10, 10*time.Second)
		read <- list
	}()
	w.save(logged(outsideAt(1), 1024, "alice", t0))
	if list := <-read; len(list) != 1 {
		t.Errorf("read %v", list)
	}
}
