package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// events returns the events of a watch that begins now, and has no gaps.
func (w *world) events(request inspect.Watch) iter.Seq2[*inspect.Notice, error] {
	w.t.Helper()
	messages, err := w.Watch(w.t.Context(), request)
	if err != nil {
		w.t.Fatal(err)
	}
	return func(yield func(*inspect.Notice, error) bool) {
		for m, err := range messages {
			if !yield(m.Notice, err) {
				return
			}
		}
	}
}

// keepFewEvents makes the Manager keep so many events at most, from the next boot on.
func keepFewEvents(n int) func(*world) {
	return func(w *world) { w.eventOctets = n * 1500 }
}

// change identifies one change of a record, in an event or in the feed.
func change(kind inspect.EventKind, why subscriber.Reason, r *subscriber.Record) string {
	text := fmt.Sprint(kind, " ", r.Inside, " ")
	switch {
	case kind == inspect.EventCreated:
		return text + r.AcctSessionID
	case kind == inspect.EventUpdated, why == subscriber.ReasonStop:
		return text + fmt.Sprint(r.InputOctets)
	}
	return text + why.String() // the feed may not have the last octets
}

// feedTruth is all that the feed ever had.
type feedTruth struct {
	*world
	after string
	all   []string
	of    map[netip.Addr][]int       // indices in all
	entry map[subscriber.Version]int // index of an entry's first change
}

// gather reads on in the feed.
func (f *feedTruth) gather() {
	f.t.Helper()
	for {
		changes, last, err := f.db.Feed(context.Background(), f.group.Name, f.after, 1000, 0, nil)
		if err != nil {
			f.t.Fatal(err)
		}
		for i := range changes {
			r := changes[i].Record.Record()
			if _, ok := f.entry[changes[i].ID]; !ok {
				f.entry[changes[i].ID] = len(f.all)
			}
			f.of[r.Inside] = append(f.of[r.Inside], len(f.all))
			f.all = append(f.all, change(changeEvents[changes[i].Kind], changes[i].Reason, &r))
		}
		if last == f.after {
			return
		}
		f.after = last
	}
}

// bngs makes random accounting of few addresses. Each Interim and Stop has octets of its own.
type bngs struct {
	*world
	random *rand.Rand
	ids    map[netip.Addr]string
	n      int
}

func (b *bngs) some(n int) {
	var events []subscriber.Event
	for range n {
		b.n++
		inside := netip.AddrFrom4([4]byte{100, 64, 1, byte(b.random.IntN(40))})
		id := b.ids[inside]
		kind := subscriber.EventInterim
		switch {
		case id == "" || b.random.IntN(20) == 0:
			kind, id = subscriber.EventStart, fmt.Sprint("s", b.n)
			b.ids[inside] = id
		case b.random.IntN(4) == 0:
			kind = subscriber.EventStop
			delete(b.ids, inside)
		}
		e := b.event(kind, inside, "u"+id, id)
		if kind != subscriber.EventStart {
			e.InputOctets = uint64(b.n)
		}
		events = append(events, e)
	}
	b.sendAll(events...)
	if b.random.IntN(20) == 0 && len(b.ids) > 0 {
		for inside := range b.ids {
			if err := b.client.Unlink(context.Background(), "sessiond:{default}:sub:"+inside.String()).Err(); err != nil {
				b.t.Fatal(err)
			}
			delete(b.ids, inside)
			break
		}
	}
}

// TestRandomDisconnects: over 4,000 disconnects at random places (10,000 in make soak), restarts of the daemon with
// changes meanwhile, events that are not kept, trims of the feed and one Redis that is emptied,
// a watcher gets each change of a record exactly once and in order, or is told to list again.
func TestRandomDisconnects(t *testing.T) {
	disconnects := 4000
	if testenv.Soak() {
		disconnects = 10_000
	}
	restartEvery, awayEvery := disconnects/20, disconnects/4
	w := newWorld(t, testGroup, keepFewEvents(60), func(w *world) { w.feedLength, w.every = 100, 20*time.Millisecond })
	random := rand.New(rand.NewPCG(3, 14))
	bng := &bngs{world: w, random: random, ids: map[netip.Addr]string{}}
	truth := &feedTruth{world: w, after: "0-0", of: map[netip.Addr][]int{}, entry: map[subscriber.Version]int{}}
	reader := &feedWatcher{world: w, truth: truth, last: -1, had: map[netip.Addr]int{}, sure: map[netip.Addr]bool{}}
	reader.read(1)
	for i := range disconnects {
		if random.IntN(2) > 0 {
			bng.some(1 + random.IntN(4))
			truth.gather()
		}
		switch {
		case i%restartEvery == restartEvery/2:
			w.halt()
			bng.some(1 + random.IntN(200)) // may be read with the records, or in the feed
			w.boot()
			truth.gather()
		case i%awayEvery == awayEvery/2:
			for range 50 {
				bng.some(40)
				truth.gather()
			}
			w.until("the feed to be trimmed", func() bool {
				return w.client.XLen(t.Context(), "sessiond:{default}:feed").Val() < 300
			})
		case i == disconnects*2/3:
			if err := w.client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			truth.after = "0-0"
			w.until("the database to be whole again", func() bool {
				_, ok, err := w.db.Marker(t.Context(), w.group.Name)
				return ok && err == nil && w.NotReady() == nil
			})
			truth.gather()
		}
		reader.read(random.IntN(7))
	}
	truth.gather()
	w.until("the rest", func() bool {
		truth.gather()
		reader.read(1000)
		return reader.last == len(truth.all)-1
	})
	for inside := range reader.sure {
		if left := truth.of[inside][reader.had[inside]:]; len(left) > 0 {
			t.Errorf("of %v are missing the changes %v", inside, left)
		}
	}
	t.Logf("%d changes, %d seen, %d gaps, %d calls refused, %d resumed from the feed", len(truth.all), reader.seen, reader.gaps, reader.refused, reader.replayed)
	if reader.gaps < 2 || reader.replayed < 200 || reader.seen-reader.replayed < 500 || reader.seen < len(truth.all)/3 {
		t.Error("that tested little")
	}
}

// feedWatcher is a watcher of record events that disconnects often.
type feedWatcher struct {
	*world
	truth *feedTruth
	place *inspect.Position
	last  int                 // index of the last change of the feed that was seen
	had   map[netip.Addr]int  // number of changes of each address that were seen, or may have been missed
	sure  map[netip.Addr]bool // a change in the feed was seen since the last call to list again: none may be missed now

	seen, gaps, refused, replayed int
}

// read takes up to so many messages, and disconnects.
func (r *feedWatcher) read(most int) {
	r.t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	request := inspect.Watch{Kinds: inspect.RecordKinds, After: r.place, Gaps: true, Progress: time.Millisecond}
	messages, err := r.Watch(ctx, request)
	switch {
	case errors.Is(err, inspect.ErrNotReady), errors.Is(err, inspect.ErrUnavailable):
		r.refused++
		return
	case err != nil:
		r.t.Fatal(err)
	}
	began := false
	for m, err := range messages {
		if errors.Is(err, inspect.ErrUnavailable) {
			r.refused++
			return
		}
		if err != nil {
			r.t.Fatal(err)
		}
		place := m.Position
		switch {
		case m.Gap != nil:
			if !m.Gap.ListAgain {
				r.t.Fatalf("told %+v, though only changes of records are wanted", *m.Gap)
			}
			r.gaps++
			clear(r.sure)
		case m.Notice != nil:
			if place = m.Notice.Position(); !began {
				r.replayed++
			}
			r.event(m.Notice)
		}
		r.place = &place
		if most--; most <= 0 || began && m.Notice == nil && m.Gap == nil {
			return
		}
		began = began || m.Notice == nil
	}
}

// event checks an event: from the feed comes the change that its position says, later than the
// last from there, and after all others of its address.
func (r *feedWatcher) event(n *inspect.Notice) {
	r.t.Helper()
	r.seen++
	inside, key, feeds := n.Subscriber.Inside, change(n.Kind, n.Reason, &n.Subscriber.Record), n.Position().Feeds
	r.truth.gather()
	if len(feeds) == 0 || feeds[0].Changes == 0 {
		r.compared(n, key)
		return
	}
	first, ok := r.truth.entry[feeds[0].Entry]
	index := first + feeds[0].Changes - 1
	switch {
	case !ok || index >= len(r.truth.all):
		r.t.Fatalf("%q came as change %d of entry %v, which has none", key, feeds[0].Changes, feeds[0].Entry)
	case n.Reason == subscriber.ReasonSuperseded && index == r.last && index+1 < len(r.truth.all) && strings.HasPrefix(r.truth.all[index+1], fmt.Sprint(inspect.EventCreated, " ", inside, " ")):
		return // of a record that was removed, and followed by another before that was noticed
	case r.truth.all[index] != key || index <= r.last:
		r.t.Fatalf("after change %d came %q (%v) as change %d, which is %q", r.last, key, n.Reason, index, r.truth.all[index])
	}
	own := r.truth.of[inside]
	if r.sure[inside] && own[r.had[inside]] != index {
		r.t.Fatalf("of %v came %q, change %d, before or after which others are missing: they are %v", inside, key, index, own[r.had[inside]:])
	}
	place, _ := slices.BinarySearch(own, index)
	r.had[inside], r.last, r.sure[inside] = place+1, index, true
}

// compared checks an event that is from a comparison with the database. Such events come in any
// order of their addresses; a Stop may lack its last octets, and changes before it may be missing
// since the watcher was told to list again.
func (r *feedWatcher) compared(n *inspect.Notice, key string) {
	r.t.Helper()
	inside := n.Subscriber.Inside
	ended := fmt.Sprint(inspect.EventDeleted, " ", inside, " ")
	next := r.truth.of[inside][r.had[inside]:]
	if r.sure[inside] {
		next = next[:min(1, len(next))]
	}
	for i, index := range next {
		if is := r.truth.all[index]; is == key || n.Reason == subscriber.ReasonStop && strings.HasPrefix(is, ended) {
			r.had[inside] += i + 1
			return
		}
	}
	if n.Kind == inspect.EventDeleted && (n.Reason == subscriber.ReasonSuperseded || n.Reason == subscriber.ReasonRemovedInDatabase && !r.sure[inside]) {
		return // the emptied Redis did not know of the session, or of its removal
	}
	r.t.Fatalf("of %v came %q (%v), want one of changes %v", inside, key, n.Reason, next)
}

// TestDisconnectsInOneRun: while one daemon runs, a watcher that comes back has all events of
// all kinds, as one that never left.
func TestDisconnectsInOneRun(t *testing.T) {
	w := newWorld(t, testGroup)
	random := rand.New(rand.NewPCG(2, 71))
	bng := &bngs{world: w, random: random, ids: map[netip.Addr]string{}}
	stays, err := w.Watch(t.Context(), inspect.Watch{Progress: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var place *inspect.Position
	var got, want []string
	read := func(most int) {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		messages, err := w.Watch(ctx, inspect.Watch{After: place, Progress: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		began := false
		for m, err := range messages {
			at := m.Position
			switch {
			case err != nil:
				t.Fatal(err)
			case m.Notice != nil:
				at = m.Notice.Position()
				got = append(got, fmt.Sprint(at.Seq, " ", change(m.Notice.Kind, m.Notice.Reason, &m.Notice.Subscriber.Record)))
			}
			place = &at
			if most--; most <= 0 || began && m.Notice == nil {
				return
			}
			began = true
		}
	}
	read(1)
	for range 500 {
		bng.some(random.IntN(5))
		read(random.IntN(12))
	}
	quiet, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.Quiet(quiet); err != nil {
		t.Fatal(err)
	}
	w.until("all held blocks to be free", func() bool {
		list, _, err := w.Bindings(t.Context(), inspect.BindingFilter{State: nat.Held}, inspect.BindingKey{}, 1)
		return err == nil && len(list) == 0
	})
	read(100_000)
	progress := 0
	for m, err := range stays {
		if err != nil {
			t.Fatal(err)
		}
		if m.Notice == nil {
			if progress++; progress > 1 {
				break
			}
			continue
		}
		want = append(want, fmt.Sprint(m.Notice.Position().Seq, " ", change(m.Notice.Kind, m.Notice.Reason, &m.Notice.Subscriber.Record)))
	}
	if len(want) < 1000 || !slices.Equal(got, want) {
		t.Errorf("%d events were seen over 500 disconnects, and %d without", len(got), len(want))
	}
}

// resume goes on behind a position.
func (w *world) resume(request inspect.Watch) ([]inspect.Message, error) {
	w.t.Helper()
	ctx, leave := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer leave()
	request.Progress = 20 * time.Millisecond
	messages, err := w.Watch(ctx, request)
	if err != nil {
		return nil, err
	}
	var all []inspect.Message
	quiet := 0
	for m, err := range messages {
		if err != nil {
			return all, err
		}
		if m.Notice == nil && m.Gap == nil {
			if quiet++; quiet == 2 {
				break
			}
			continue
		}
		all = append(all, m)
	}
	return all, nil
}

// placeNow returns the position of a watch that begins now.
func (w *world) placeNow() *inspect.Position {
	w.t.Helper()
	messages, err := w.Watch(w.t.Context(), inspect.Watch{Gaps: true})
	if err != nil {
		w.t.Fatal(err)
	}
	for m := range messages {
		return &m.Position
	}
	w.t.Fatal("no position")
	return nil
}

// TestResumeOverRestart: after a restart the changes of records since the position come from
// the feed, with their subscribers as far as they are known, and a gap tells that events of
// other kinds are missing. A filter that cannot be decided is not guessed.
func TestResumeOverRestart(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	place := w.placeNow()
	w.halt()
	w.send(subscriber.EventInterim, alice, "a", "1")
	w.send(subscriber.EventStop, bob, "b", "2")
	third := netip.MustParseAddr("100.64.0.12")
	w.send(subscriber.EventStart, third, "c", "3")
	w.send(subscriber.EventStop, third, "c", "3")
	w.boot()

	all, err := w.resume(inspect.Watch{After: place, Gaps: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 || all[0].Gap == nil || *all[0].Gap != (inspect.Gap{Cause: inspect.GapRestarted}) {
		t.Fatalf("it begins with %+v", all)
	}
	want := []string{"updated a bng-1", "deleted b STOP", "created c bng-1", "deleted c bng-1 STOP"}
	var got []string
	for _, m := range all[1:] {
		if m.Notice == nil {
			t.Fatalf("then %+v", m)
		}
		n, r := m.Notice, &m.Notice.Subscriber.Record
		text := map[inspect.EventKind]string{inspect.EventCreated: "created ", inspect.EventUpdated: "updated ", inspect.EventDeleted: "deleted "}[n.Kind] + r.UserName
		if r.NAS != "" {
			text += " " + r.NAS
		}
		if n.Reason != subscriber.ReasonNone {
			text += " " + n.Reason.String()
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Behind each of these the others follow, and nothing else.
	for i, m := range all[1:] {
		at := m.Notice.Position()
		rest, err := w.resume(inspect.Watch{After: &at, Kinds: inspect.RecordKinds, Gaps: true})
		if err != nil || len(rest) != len(all)-2-i {
			t.Errorf("behind event %d come %d, %v", i, len(rest), err)
		}
	}
	if none, err := w.resume(inspect.Watch{After: place}); !errors.Is(err, inspect.ErrListAgain) {
		t.Errorf("without gaps: %v, %v", none, err)
	}
	some, err := w.resume(inspect.Watch{After: place, Gaps: true, Kinds: inspect.RecordKinds, Filter: inspect.SubscriberFilter{NAS: "bng-1"}})
	if err != nil || len(some) < 2 || some[0].Notice == nil || some[1].Gap == nil || !some[1].Gap.ListAgain {
		t.Errorf("of one NAS: %+v, %v", some, err)
	}
	if none, err := w.resume(inspect.Watch{After: place, Kinds: inspect.RecordKinds, Filter: inspect.SubscriberFilter{NAS: "bng-1"}}); !errors.Is(err, inspect.ErrListAgain) {
		t.Errorf("of one NAS, without gaps: %v, %v", none, err)
	}
}

// TestReplayGuessesNoFilter: where the feed does not tell whose record ended, a watch with any
// filter besides group and address is told to list again; one that does not concern the address
// is told nothing.
func TestReplayGuessesNoFilter(t *testing.T) {
	w := newWorld(t, testGroup)
	start := w.event(subscriber.EventStart, alice, "alice", "1")
	start.CallingStationID = "02:00:00:00:00:07"
	w.sendAll(start)
	w.awaitState(alice, nat.Active)
	place := w.placeNow()
	w.halt()
	w.send(subscriber.EventStop, alice, "alice", "1")
	w.boot()

	inside := netip.PrefixFrom(alice, alice.BitLen())
	told := map[string]bool{} // fields
	for _, c := range []struct {
		filter    inspect.SubscriberFilter
		listAgain bool
	}{
		{inspect.SubscriberFilter{Group: "default"}, false},
		{inspect.SubscriberFilter{Inside: inside}, false},
		{inspect.SubscriberFilter{NAS: "bng-1"}, true},
		{inspect.SubscriberFilter{UserName: "alice"}, true},
		{inspect.SubscriberFilter{UserPrefix: "ali"}, true},
		{inspect.SubscriberFilter{Station: inspect.NewStation(start.CallingStationID)}, true},
		{inspect.SubscriberFilter{AcctSessionID: "1"}, true},
		{inspect.SubscriberFilter{State: inspect.SubscriberActive}, true},
		{inspect.SubscriberFilter{Outside: inside}, true},
		{inspect.SubscriberFilter{Port: 1024}, true},
		{inspect.SubscriberFilter{Remote: inside}, true},
		{inspect.SubscriberFilter{RemotePort: 443}, true},
	} {
		request := inspect.Watch{After: place, Kinds: inspect.RecordKinds, Gaps: true, Filter: c.filter}
		all, err := w.resume(request)
		if err != nil || len(all) != 1 || (all[0].Gap != nil) != c.listAgain || c.listAgain && !all[0].Gap.ListAgain {
			t.Errorf("%+v: %+v, %v", c.filter, all, err)
		}
		fields := reflect.ValueOf(c.filter)
		for i := range fields.NumField() {
			if !fields.Field(i).IsZero() {
				told[fields.Type().Field(i).Name] = true
			}
		}
		request.Filter.Inside = netip.PrefixFrom(bob, bob.BitLen())
		if c.filter.Inside.IsValid() {
			continue
		}
		if none, err := w.resume(request); err != nil || len(none) != 0 {
			t.Errorf("%+v, of another address: %+v, %v", c.filter, none, err)
		}
	}
	if n := reflect.TypeFor[inspect.SubscriberFilter]().NumField(); len(told) != n {
		t.Errorf("of %d fields %v are tested", n, told)
	}
}

// TestLostPositions: a position that the feed does not lead on from is told, whatever the cause.
func TestLostPositions(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	place := w.placeNow()
	w.halt()
	w.boot()
	if all, err := w.resume(inspect.Watch{After: place, Kinds: inspect.RecordKinds, Gaps: true}); err != nil || len(all) != 0 {
		t.Errorf("nothing has changed, and it got %+v, %v", all, err)
	}
	feed := place.Feeds[0]
	for name, spoil := range map[string]func(*inspect.Position){
		"another database": func(p *inspect.Position) { p.Feeds[0].Epoch++ },
		"a later entry":    func(p *inspect.Position) { p.Feeds[0].Entry = subscriber.ParseVersion("9999999999999-0") },
		"an earlier entry": func(p *inspect.Position) { p.Feeds[0].Entry = subscriber.ParseVersion("1-0") },
		"no entry":         func(p *inspect.Position) { p.Feeds[0].Entry = subscriber.Version{} },
		"no group":         func(p *inspect.Position) { p.Feeds = nil },
		"another group":    func(p *inspect.Position) { p.Feeds = append(p.Feeds, inspect.FeedPosition{Group: "west"}) },
	} {
		lost := inspect.Position{Run: place.Run, Seq: place.Seq, Feeds: []inspect.FeedPosition{feed}}
		spoil(&lost)
		all, err := w.resume(inspect.Watch{After: &lost, Kinds: inspect.RecordKinds, Gaps: true})
		if err != nil || len(all) != 1 || all[0].Gap == nil || !all[0].Gap.ListAgain || len(all[0].Position.Feeds) != 1 {
			t.Errorf("%s: %+v, %v", name, all, err)
		}
		if _, err := w.resume(inspect.Watch{After: &lost, Kinds: inspect.RecordKinds}); !errors.Is(err, inspect.ErrListAgain) {
			t.Errorf("%s, without gaps: %v", name, err)
		}
	}
}

// TestWatchersHearOfFeedGap: where the daemon compares a group instead of following its feed,
// watchers are told to list again.
func TestWatchersHearOfFeedGap(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	messages, err := w.Watch(t.Context(), inspect.Watch{Gaps: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.client.Del(t.Context(), "sessiond:{default}:feed").Err(); err != nil {
		t.Fatal(err)
	}
	for m, err := range messages {
		if err != nil {
			t.Fatal(err)
		}
		if m.Gap != nil {
			if *m.Gap != (inspect.Gap{Cause: inspect.GapFeed, Group: "default", ListAgain: true}) {
				t.Errorf("told %+v", *m.Gap)
			}
			break
		}
	}
}

// TestOneGapOfManyDifferences: of the changes that a comparison finds beside the feed watchers get each
// event, and one gap for all of them.
func TestOneGapOfManyDifferences(t *testing.T) {
	const n = 20
	w := newWorld(t, testGroup)
	ctx := t.Context()
	keys := map[string]string{}
	var starts, stops []subscriber.Event
	for i := range n {
		inside := netip.AddrFrom4([4]byte{100, 64, 1, byte(i)})
		starts = append(starts, w.event(subscriber.EventStart, inside, "u", fmt.Sprint(i)))
		stops = append(stops, w.event(subscriber.EventStop, inside, "u", fmt.Sprint(i)))
		keys["sessiond:{default}:sub:"+inside.String()] = ""
	}
	w.sendAll(starts...)
	for key := range keys {
		keys[key] = w.client.Dump(ctx, key).Val()
	}
	w.sendAll(stops...)
	w.until("all to be offline", func() bool {
		list, _, err := w.Subscribers(ctx, inspect.SubscriberFilter{}, subscriber.Key{}, 1)
		return err == nil && len(list) == 0
	})
	messages, err := w.Watch(ctx, inspect.Watch{Gaps: true, Kinds: inspect.RecordKinds, Progress: 2 * feedBlock})
	if err != nil {
		t.Fatal(err)
	}
	for key, record := range keys {
		if err := w.client.Restore(ctx, key, time.Minute, record).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Reconcile(ctx, false); err != nil {
		t.Fatal(err)
	}
	events, gaps, quiet := 0, 0, 0
	for m, err := range messages {
		switch {
		case err != nil:
			t.Fatal(err)
		case m.Notice != nil:
			events++
		case m.Gap != nil:
			gaps++
		default:
			quiet++
		}
		if quiet == 2 { // where it began, and after a read of the feed
			break
		}
	}
	if events != n || gaps != 1 {
		t.Errorf("%d events and %d gaps of %d differences", events, gaps, n)
	}
	more, err := w.Watch(ctx, inspect.Watch{Gaps: true, Kinds: inspect.RecordKinds, Progress: 2 * feedBlock})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.groups["default"].beside.toldAt = time.Now().Add(-besideRest)
	w.mu.Unlock()
	began := false
	for m, err := range more {
		if err != nil || began {
			if m.Gap == nil || !m.Gap.ListAgain {
				t.Errorf("after the rest came %+v, %v, want a gap for the changes since", m, err)
			}
			break
		}
		began = true
	}
}

// tailless is a Redis that does not tell where feeds end.
type tailless struct{ watchStore }

func (tailless) Tail(context.Context, string) (string, error) { return "", errors.New("no answer") }

// TestOtherGroupsHoldUpNoWatch: a watch that comes back waits for the feeds of its own group alone.
func TestOtherGroupsHoldUpNoWatch(t *testing.T) {
	w := newWorld(t, testGroup)
	place := w.placeNow()
	w.halt()
	w.boot()
	w.Backend.watches.store = tailless{w.Backend.watches.store}
	for group, want := range map[string]error{"": inspect.ErrUnavailable, "default": inspect.ErrUnavailable, "west": nil} {
		_, err := w.resume(inspect.Watch{After: place, Kinds: inspect.RecordKinds, Filter: inspect.SubscriberFilter{Group: group}})
		if !errors.Is(err, want) {
			t.Errorf("of group %q: %v, want %v", group, err, want)
		}
	}
}

// TestLateEvents: a change that comes when the daemon has read a newer record is told as late, so
// that a mirror leaves it out; the others are not.
func TestLateEvents(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "old", "1")
	w.awaitState(alice, nat.Active)
	before, err := w.Subscriber(t.Context(), subscriber.Key{Inside: alice})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := w.Watch(t.Context(), inspect.Watch{Kinds: inspect.RecordKinds, Gaps: true})
	if err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventStart, alice, "new", "2")
	w.until("the new session", func() bool {
		s, err := w.Subscriber(t.Context(), subscriber.Key{Inside: alice})
		return err == nil && s.UserName == "new"
	})
	again := before.Record
	w.mu.Lock()
	w.Manager.life.Apply(&subscriber.Change{
		ID: subscriber.ParseVersion(before.Version), Kind: subscriber.Deleted, End: subscriber.End{Reason: subscriber.ReasonStop}, Record: again.Pack(),
	}, w.Manager.now())
	w.mu.Unlock()
	w.send(subscriber.EventStop, alice, "new", "2")
	var got []string
	for m, err := range messages {
		if err != nil {
			t.Fatal(err)
		}
		if m.Notice == nil { // the begin; and a gap, since the change was not read from the feed
			continue
		}
		got = append(got, fmt.Sprint(m.Notice.Kind, " ", m.Notice.Subscriber.UserName, " ", m.Notice.Late))
		if m.Notice.Kind == inspect.EventDeleted && m.Notice.Subscriber.UserName == "new" {
			break
		}
	}
	want := []string{
		fmt.Sprint(inspect.EventDeleted, " old false"), fmt.Sprint(inspect.EventCreated, " new false"),
		fmt.Sprint(inspect.EventDeleted, " old true"), fmt.Sprint(inspect.EventDeleted, " new false"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}
