package inspect

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

func event(n int) Event { return Event{SessionsEnded: n} }

func broadcaster(events int) *Broadcaster {
	return NewBroadcaster(BroadcasterOptions{Run: 7, Octets: events * noticeOctets})
}

func watch(t testing.TB, b *Broadcaster, ctx context.Context, w Watch) iter.Seq2[Message, error] {
	t.Helper()
	events, err := b.Watch(ctx, w, FeedPositions{})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func publish(b *Broadcaster, events ...Event) {
	for _, e := range events {
		b.Publish(e, FeedPositions{})
	}
}

// told returns the events of a watch to its end, by their numbers.
func told(t *testing.T, messages iter.Seq2[Message, error]) (got []int) {
	t.Helper()
	for m, err := range messages {
		switch {
		case err != nil:
			t.Fatal(err)
		case m.Notice != nil:
			got = append(got, m.Notice.SessionsEnded)
		}
	}
	return got
}

func TestWatchSeesWhatFollowsIt(t *testing.T) {
	t.Parallel()
	b := broadcaster(10)
	publish(b, event(1))
	events := watch(t, b, t.Context(), Watch{})
	publish(b, event(2), event(3))
	b.Close()
	if got := told(t, events); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("saw %v", got)
	}
	if got := told(t, watch(t, b, t.Context(), Watch{})); got != nil {
		t.Errorf("a closed broadcaster has events: %v", got)
	}
}

func TestWatchFilters(t *testing.T) {
	t.Parallel()
	b := broadcaster(10)
	byUser := watch(t, b, t.Context(), Watch{Filter: SubscriberFilter{UserName: "alice"}})
	byKind := watch(t, b, t.Context(), Watch{Kinds: KindsOf(EventCut, EventDeleted)})
	for n, user := range []string{"bob", "alice"} {
		e := event(n)
		e.Subscriber.UserName, e.Kind = user, []EventKind{EventCut, EventReaped}[n]
		publish(b, e)
	}
	b.Close()
	if got := told(t, byUser); !slices.Equal(got, []int{1}) {
		t.Errorf("of alice: %v", got)
	}
	if got := told(t, byKind); !slices.Equal(got, []int{0}) {
		t.Errorf("of cuts: %v", got)
	}
}

// TestWaitersByField: an event wakes those who want it, by whatever field of their filters, and
// leaves all others waiting.
func TestWaitersByField(t *testing.T) {
	t.Parallel()
	inside := netip.MustParsePrefix("100.64.0.7/32")
	for name, c := range map[string]struct {
		filter SubscriberFilter
		wakes  bool
	}{
		"all":             {SubscriberFilter{}, true},
		"group":           {SubscriberFilter{Group: "default"}, true},
		"prefix":          {SubscriberFilter{Inside: netip.MustParsePrefix("100.64.0.0/24")}, true},
		"address":         {SubscriberFilter{Inside: inside, UserName: "alice"}, true},
		"user":            {SubscriberFilter{UserName: "alice", NAS: "bng1"}, true},
		"nas":             {SubscriberFilter{NAS: "bng1"}, true},
		"another group":   {SubscriberFilter{Group: "east"}, false},
		"another address": {SubscriberFilter{Inside: netip.MustParsePrefix("100.64.0.8/32")}, false},
		"another user":    {SubscriberFilter{Inside: inside, UserName: "bob"}, false},
		"another nas":     {SubscriberFilter{UserName: "alice", NAS: "bng2"}, false},
	} {
		b := broadcaster(2)
		ctx, leave := context.WithCancel(t.Context())
		events := watch(t, b, ctx, Watch{Filter: c.filter})
		woken := make(chan int, 1)
		go func() {
			defer close(woken)
			for m := range events {
				woken <- m.Notice.SessionsEnded
				return
			}
		}()
		awaitWaiting(t, b, 1)
		var e Event
		e.Subscriber.Record = subscriber.Record{
			Key:       subscriber.Key{Group: "west", Inside: netip.MustParseAddr("100.64.9.99")},
			SessionID: subscriber.SessionID{NAS: "bng9"}, UserName: "carol",
		}
		if c.filter != (SubscriberFilter{}) {
			publish(b, e, e, e) // more than are kept
		}
		e.Subscriber.Key = subscriber.Key{Group: "default", Inside: inside.Addr()}
		e.SessionsEnded, e.Subscriber.NAS, e.Subscriber.UserName = 5, "bng1", "alice"
		publish(b, e)
		if !c.wakes {
			awaitWaiting(t, b, 1)
			leave()
		}
		if n, ok := <-woken; ok != c.wakes || ok && n != 5 {
			t.Errorf("%s: woken %v by %d, want %v", name, ok, n, c.wakes)
		}
		leave()
	}
}

// TestSlowWatcher: a watcher behind the events that are kept is ended, or told how many it
// missed, and one that keeps up notices nothing.
func TestSlowWatcher(t *testing.T) {
	t.Parallel()
	b := broadcaster(2)
	ended := watch(t, b, t.Context(), Watch{})
	warned := watch(t, b, t.Context(), Watch{Gaps: true})
	quiet := watch(t, b, t.Context(), Watch{Filter: SubscriberFilter{UserName: "nobody"}})
	var waits sync.WaitGroup
	waits.Go(func() {
		for m, err := range quiet {
			t.Errorf("whoever is not concerned got %+v, %v", m, err)
		}
	})
	awaitWaiting(t, b, 1)
	publish(b, event(0), event(1), event(2), event(3), event(4))
	for m, err := range ended {
		if m.Notice != nil || !errors.Is(err, ErrLagging) {
			t.Errorf("%+v, %v", m, err)
		}
	}
	seen := 0
	for m, err := range warned {
		if seen++; err != nil {
			t.Fatal(err)
		}
		switch seen {
		case 1: // where it began
		case 2:
			if m.Gap == nil || *m.Gap != (Gap{Cause: GapBehind, Missed: 5, ListAgain: true}) || m.Position.Seq != 5 {
				t.Errorf("%+v at %+v", m.Gap, m.Position)
			}
			publish(b, event(5))
			b.Close()
		default:
			if seen != 3 || m.Notice == nil || m.Notice.SessionsEnded != 5 {
				t.Errorf("then %+v", m)
			}
		}
	}
	waits.Wait()
}

// awaitWaiting waits until so many watchers have taken all events.
func awaitWaiting(t *testing.T, b *Broadcaster, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		b.mu.Lock()
		waiting := 0
		for _, some := range b.waiting {
			waiting += len(some)
		}
		b.mu.Unlock()
		if waiting == n {
			return
		}
	}
	t.Fatalf("never %d watchers wait", n)
}

// TestKeepsByOctets: a few large events take as much room as many small ones.
func TestKeepsByOctets(t *testing.T) {
	t.Parallel()
	b := broadcaster(10)
	watch(t, b, t.Context(), Watch{})
	large := event(1)
	large.Subscriber.UserName = strings.Repeat("x", 253)
	large.Subscriber.MoreClasses = slices.Repeat([]string{large.Subscriber.UserName}, 4)
	publish(b, slices.Repeat([]Event{large}, 10)...)
	if n := len(b.kept); n == 0 || n > 3 {
		t.Errorf("%d large events are kept where 10 small ones may", n)
	}
	huge := large
	huge.Subscriber.MoreClasses = slices.Repeat(large.Subscriber.MoreClasses, 10)
	publish(b, huge)
	if len(b.kept) != 1 {
		t.Errorf("%d events are kept, want the newest, however large", len(b.kept))
	}
}

// TestResume: a watch goes on behind any position without a repetition, as long as the events
// are kept, and otherwise says that they are not.
func TestResume(t *testing.T) {
	t.Parallel()
	b := broadcaster(5)
	first := watch(t, b, t.Context(), Watch{Gaps: true})
	publish(b, event(1), event(2), event(3))
	var places []Position
	for m := range first {
		if p := m.Position; m.Notice == nil {
			places = append(places, p)
		} else {
			places = append(places, m.Notice.Position())
		}
		if len(places) == 4 {
			break
		}
	}
	watch(t, b, t.Context(), Watch{}) // so that events are kept
	for i, p := range places {
		again := watch(t, b, t.Context(), Watch{After: &p, Progress: time.Hour})
		var got []int
		for m := range again {
			if m.Notice != nil {
				got = append(got, m.Notice.SessionsEnded)
			} else if m.Position.Seq != p.Seq {
				t.Errorf("behind %d it began at %d", p.Seq, m.Position.Seq)
			}
			if i+len(got) == 3 {
				break
			}
		}
		if want := []int{1, 2, 3}[i:]; !slices.Equal(got, want) {
			t.Errorf("behind %d: %v, want %v", p.Seq, got, want)
		}
	}
	publish(b, event(4), event(5), event(6), event(7)) // 1 and 2 go
	for name, c := range map[string]struct {
		after Position
		want  NotKeptError
	}{
		"gone":        {places[0], NotKeptError{Missed: 2}},
		"another run": {Position{Run: 8, Seq: 5}, NotKeptError{Restarted: true}},
		"the future":  {Position{Run: 7, Seq: 8}, NotKeptError{}},
	} {
		_, err := b.Watch(t.Context(), Watch{After: &c.after}, FeedPositions{})
		if gone := (*NotKeptError)(nil); !errors.As(err, &gone) || *gone != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Watch(t.Context(), Watch{After: &places[2]}, FeedPositions{}); err != nil {
		t.Errorf("behind the last that is gone: %v", err)
	}
}

// TestEventsAreKeptForAWhile: events are kept for some time after the last watcher left, and
// then nobody goes on as if none had been missed.
func TestEventsAreKeptForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcaster(BroadcasterOptions{Run: 7, Octets: 1 << 20, Keep: time.Minute})
		if publish(b, event(0)); b.Watched() {
			t.Error("events are kept for nobody")
		}
		var place Position
		for m := range watch(t, b, t.Context(), Watch{Gaps: true}) {
			place = m.Position
			break
		}
		time.Sleep(59 * time.Second)
		publish(b, event(1))
		for m := range watch(t, b, t.Context(), Watch{After: &place}) {
			if m.Notice.SessionsEnded != 1 {
				t.Errorf("got %d", m.Notice.SessionsEnded)
			}
			break
		}
		time.Sleep(61 * time.Second)
		if b.Watched() {
			t.Error("events are still kept for nobody")
		}
		publish(b, event(2))
		_, err := b.Watch(t.Context(), Watch{After: &place}, FeedPositions{})
		if gone := (*NotKeptError)(nil); !errors.As(err, &gone) || *gone != (NotKeptError{}) {
			t.Errorf("after the pause: %v", err)
		}
	})
}

// TestProgress: a quiet watch gets a position at intervals, also behind events that do not
// concern it, and going on there repeats and misses nothing.
func TestProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcaster(BroadcasterOptions{Run: 7, Octets: 1 << 20, Rest: 10 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		events := watch(t, b, ctx, Watch{Kinds: KindsOf(EventCut), Progress: time.Second})
		var publisher sync.WaitGroup
		publisher.Go(func() {
			for n := range 50 {
				e := event(n)
				if e.Kind = EventUpdated; n == 49 {
					e.Kind = EventCut
				}
				publish(b, e)
				time.Sleep(100 * time.Millisecond)
			}
		})
		defer publisher.Wait()
		began := time.Now()
		var progress []uint64
		var last Position
		for m, err := range events {
			if err != nil {
				t.Fatal(err)
			}
			if m.Notice != nil {
				break
			}
			progress = append(progress, m.Position.Seq)
			last = m.Position
		}
		if took := time.Since(began); took < 4900*time.Millisecond || took > 4950*time.Millisecond {
			t.Errorf("the event came after %v", took)
		}
		if len(progress) != 5 || !slices.IsSorted(progress) || last.Seq < 38 {
			t.Errorf("progress %v", progress)
		}
		for m := range watch(t, b, ctx, Watch{Kinds: KindsOf(EventCut), After: &last}) {
			if m.Notice.SessionsEnded != 49 {
				t.Errorf("then %+v", m)
			}
			break
		}
	})
}

// TestWatcherRests: a watcher that pauses gets all events that came meanwhile,
// and the pause does not delay its end.
func TestWatcherRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rest = 10 * time.Millisecond
		b := NewBroadcaster(BroadcasterOptions{Octets: 100 * noticeOctets, Rest: rest})
		events := watch(t, b, t.Context(), Watch{})
		began := time.Now()
		publish(b, event(0))
		seen := 0
		for range events {
			if seen++; seen == 3 {
				break
			}
			if seen == 1 {
				publish(b, event(1), event(2))
			}
		}
		if took := time.Since(began); took != rest {
			t.Errorf("took %v for three events with a rest of %v between", took, rest)
		}
	})
}

// TestLostFeed: a gap in a feed reaches the watchers of its group, as a message or as an end.
func TestLostFeed(t *testing.T) {
	t.Parallel()
	b := broadcaster(10)
	east := Gap{Cause: GapFeed, Group: "east", ListAgain: true}
	ended := watch(t, b, t.Context(), Watch{})
	warned := watch(t, b, t.Context(), Watch{Gaps: true, Kinds: KindsOf(EventCut)})
	elsewhere := watch(t, b, t.Context(), Watch{Filter: SubscriberFilter{Group: "west"}})
	b.Lose(east, FeedPositions{})
	b.Close()
	var last error
	for _, last = range ended {
	}
	if !errors.Is(last, ErrListAgain) {
		t.Errorf("ended with %v", last)
	}
	var gaps []Gap
	for m := range warned {
		if m.Gap != nil {
			gaps = append(gaps, *m.Gap)
		}
	}
	if !slices.Equal(gaps, []Gap{east}) {
		t.Errorf("told %v", gaps)
	}
	for m, err := range elsewhere {
		t.Errorf("elsewhere: %v, %v", m, err)
	}
}

// TestNoticeIsEncodedOnce: an event is encoded once for all watchers.
// TestGapIsToldOnce: who lists after a gap is not told of gaps that were there by then, as the list
// shows those changes; of later ones, of other groups, and over a reconnect it is.
func TestGapIsToldOnce(t *testing.T) {
	t.Parallel()
	b := broadcaster(20)
	lose := func(group string) { b.Lose(Gap{Cause: GapFeed, Group: group, ListAgain: true}, FeedPositions{}) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages := watch(t, b, ctx, Watch{Gaps: true})
	lose("east")
	publish(b, event(1))
	lose("east")
	lose("west")
	publish(b, event(2))
	var got []string
	again := false
	for m, err := range messages {
		switch {
		case err != nil:
			t.Fatal(err)
		case m.Gap != nil:
			got = append(got, m.Gap.Group)
		case m.Notice != nil:
			got = append(got, fmt.Sprint(m.Notice.SessionsEnded))
			if m.Notice.SessionsEnded == 2 {
				again = true
				lose("east")
				publish(b, event(3))
			}
			if m.Notice.SessionsEnded == 3 {
				cancel()
			}
		}
	}
	if want := []string{"east", "1", "west", "2", "east", "3"}; !again || !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

// TestBusyReader: a reader with work of its own gets a message as soon as there is no event, and
// waits again when it has none.
func TestBusyReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := broadcaster(100)
		work := 3
		messages := watch(t, b, t.Context(), Watch{Gaps: true, Busy: func() bool { return work > 0 }})
		publish(b, event(0), event(1))
		var got []string
		began := time.Now()
		for m := range messages {
			if m.Notice != nil {
				got = append(got, fmt.Sprint(m.Notice.SessionsEnded))
				if m.Notice.SessionsEnded == 9 {
					break
				}
				continue
			}
			got = append(got, fmt.Sprint("behind ", m.Position.Seq))
			if work--; work == 1 {
				publish(b, event(2))
			}
			if work == 0 {
				time.AfterFunc(time.Hour, func() { publish(b, event(9)) })
			}
		}
		if want := []string{"behind 0", "0", "1", "behind 2", "2", "behind 3", "9"}; !slices.Equal(got, want) || time.Since(began) < time.Hour {
			t.Errorf("got %q after %v, want %q", got, time.Since(began), want)
		}
		b.Close()
	})
}

// TestTokensAreCounted: the positions of many groups, and the tokens made of them, count as memory
// of the events that are kept: a list of positions once, whichever of its events are gone.
func TestTokensAreCounted(t *testing.T) {
	t.Parallel()
	list := func(groups int) FeedPositions {
		var f FeedPositions
		for i := range groups {
			f.Shared = append(f.Shared, FeedPosition{Group: fmt.Sprintf("group-%04d", i), Entry: subscriber.ParseVersion("1772359200000-3")})
		}
		return f
	}
	keep := func(groups, moves, events int) *Broadcaster {
		b := NewBroadcaster(BroadcasterOptions{Run: 7, Octets: 4 << 20, Keep: time.Minute})
		watch(t, b, t.Context(), Watch{})
		for range moves {
			f := list(groups)
			for i := range events {
				b.Publish(event(i), f)
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		octets := 0
		for i, n := range b.kept {
			octets += n.octets
			if shares := i > 0 && n.feeds.shares(&b.kept[i-1].feeds); (n.list > 0) == (shares || groups == 0) {
				t.Errorf("%d groups: notice %d of %d has the octets %d of its list", groups, i, len(b.kept), n.list)
			}
		}
		if octets != b.octets || octets > 4<<20 {
			t.Errorf("%d groups: %d octets are counted, and %d are there", groups, b.octets, octets)
		}
		return b
	}
	few, many, shared := keep(0, 50, 100), keep(1000, 50, 2), keep(1000, 2, 50)
	if len(few.kept) < 2500 || len(many.kept) > 60 || len(shared.kept) <= len(many.kept) {
		t.Errorf("kept %d events without a group, %d of a thousand groups, %d where they share positions", len(few.kept), len(many.kept), len(shared.kept))
	}
}

func TestNoticeIsEncodedOnce(t *testing.T) {
	t.Parallel()
	n := &Notice{Event: event(7)}
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			got, err := n.Encoded(func(n *Notice) ([]byte, error) { made.Add(1); return []byte{byte(n.SessionsEnded)}, nil })
			if err != nil || len(got) != 1 || got[0] != 7 {
				t.Errorf("encoded to %v, %v", got, err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("encoded %d times", made.Load())
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := broadcaster(1)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		events := watch(t, b, ctx, Watch{})
		done.Go(func() {
			for _, err := range events {
				t.Errorf("saw something: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		done.Wait()
		if b.Watchers() != 0 || len(b.waiting) != 0 {
			t.Error("the watcher is still there")
		}
	})
}

func TestLeavingTheRangeEndsTheWatch(t *testing.T) {
	t.Parallel()
	b := broadcaster(1)
	events := watch(t, b, t.Context(), Watch{})
	publish(b, event(1))
	for range events {
		break
	}
	if b.Watchers() != 0 {
		t.Error("the watcher is still there")
	}
}

// TestStalledWatchersShareMemory: a thousand watchers that take nothing keep no event but
// those that are kept for all.
func TestStalledWatchersShareMemory(t *testing.T) {
	b := broadcaster(100)
	leave := make(chan struct{})
	var stalled, stuck sync.WaitGroup
	for range 1000 {
		stuck.Add(1)
		events := watch(t, b, t.Context(), Watch{})
		stalled.Go(func() {
			for range events {
				stuck.Done()
				<-leave
				break
			}
		})
	}
	publish(b, event(0))
	stuck.Wait()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range 20_000 {
		publish(b, event(n))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("the heap grew by %d kB over 20,000 events", grown>>10)
	}
	close(leave)
	stalled.Wait()
}

func TestBroadcastConcurrently(t *testing.T) {
	t.Parallel()
	b := broadcaster(4)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for n := range 200 {
				publish(b, event(n))
			}
		})
		all.Go(func() {
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				for range watch(t, b, ctx, Watch{}) {
					break
				}
				cancel()
			}
		})
	}
	// The remaining watchers wait for one more event each.
	stop := make(chan struct{})
	var feeder sync.WaitGroup
	feeder.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				publish(b, event(0))
			}
		}
	})
	all.Wait()
	close(stop)
	feeder.Wait()
}

// TestRandomDisconnects: over thousands of disconnects at random places, beside a publisher
// that does not wait, a watcher gets each event once and in order, or learns exactly how many
// it missed.
func TestRandomDisconnects(t *testing.T) {
	t.Parallel()
	const events, disconnects = 45_000, 10_000
	b := NewBroadcaster(BroadcasterOptions{Run: 7, Octets: 300 * noticeOctets, Keep: time.Minute})
	random := rand.New(rand.NewPCG(1, 2))
	var place Position
	for m := range watch(t, b, t.Context(), Watch{Gaps: true}) {
		place = m.Position
		break
	}
	next := make(chan struct{}, 64) // lets the publisher run ahead, sometimes too far
	over := make(chan struct{})
	go func() {
		defer close(over)
		for n := range events {
			<-next
			publish(b, event(n))
		}
	}()
	allow := func(n int) {
		for range n {
			select {
			case next <- struct{}{}:
			case <-over:
			}
		}
	}
	expected, missed, gaps, connects := 0, 0, 0, 0
	for expected < events {
		allow(random.IntN(6))
		if random.IntN(2000) == 0 {
			allow(400) // so many events that some are gone
		}
		connects++
		ctx, leave := context.WithCancel(t.Context())
		messages, err := b.Watch(ctx, Watch{After: &place, Gaps: true}, FeedPositions{})
		if gone := (*NotKeptError)(nil); errors.As(err, &gone) {
			if gone.Missed == 0 || gone.Restarted {
				t.Fatalf("behind %+v: %+v", place, gone)
			}
			gaps++
			missed += int(gone.Missed)
			expected += int(gone.Missed)
			place.Seq += gone.Missed
			leave()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		most := random.IntN(4)
		for m, err := range messages {
			switch {
			case err != nil:
				t.Fatal(err)
			case m.Gap != nil:
				gaps++
				missed += int(m.Gap.Missed)
				expected += int(m.Gap.Missed)
				place = m.Position
			case m.Notice == nil:
				place = m.Position
			case m.Notice.SessionsEnded != expected:
				t.Fatalf("event %d, want %d", m.Notice.SessionsEnded, expected)
			default:
				expected++
				place = m.Notice.Position()
			}
			if most--; most < 0 || expected == events {
				break
			}
			allow(1)
		}
		leave()
	}
	<-over
	t.Logf("%d connects, %d gaps, %d events missed of %d", connects, gaps, missed, events)
	if connects < disconnects || gaps == 0 || missed == 0 {
		t.Errorf("%d connects, %d gaps, %d missed: that tested little", connects, gaps, missed)
	}
}
