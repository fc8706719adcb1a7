package inspect

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func event(n int) Event { return Event{SessionsEnded: n} }

func TestWatchSeesWhatFollowsIt(t *testing.T) {
	t.Parallel()
	b := NewBroadcaster(10*noticeOctets, 0)
	b.Publish(event(1))
	events := b.Watch(t.Context(), SubscriberFilter{})
	b.Publish(event(2))
	b.Publish(event(3))
	b.Close()
	var got []int
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.SessionsEnded)
	}
	if len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("saw %v", got)
	}
	for range b.Watch(t.Context(), SubscriberFilter{}) {
		t.Error("a closed broadcaster has events")
	}
}

func TestWatchFilters(t *testing.T) {
	t.Parallel()
	b := NewBroadcaster(10*noticeOctets, 0)
	events := b.Watch(t.Context(), SubscriberFilter{UserName: "alice"})
	for _, user := range []string{"bob", "alice"} {
		var e Event
		e.Subscriber.UserName = user
		b.Publish(e)
	}
	b.Close()
	for e := range events {
		if e.Subscriber.UserName != "alice" {
			t.Errorf("saw %s", e.Subscriber.UserName)
		}
	}
}

func TestLaggingWatcherIsEnded(t *testing.T) {
	t.Parallel()
	b := NewBroadcaster(2*noticeOctets, 0)
	slow := b.Watch(t.Context(), SubscriberFilter{})
	b.Watch(t.Context(), SubscriberFilter{UserName: "nobody"})
	for n := range 3 {
		b.Publish(event(n))
	}
	var seen int
	var last error
	for _, err := range slow {
		if last = err; err == nil {
			seen++
		}
	}
	if seen != 2 || !errors.Is(last, ErrLagging) {
		t.Errorf("saw %d events, then %v", seen, last)
	}
	if !b.Watched() {
		t.Error("the watcher that kept up is gone, too")
	}
}

// TestWatcherLagsByOctets: a few large waiting events count as much as many
// small ones.
func TestWatcherLagsByOctets(t *testing.T) {
	t.Parallel()
	b := NewBroadcaster(10*noticeOctets, 0)
	b.Watch(t.Context(), SubscriberFilter{})
	large := event(1)
	large.Subscriber.UserName = strings.Repeat("x", 253)
	large.Subscriber.MoreClasses = slices.Repeat([]string{large.Subscriber.UserName}, 4)
	published := 0
	for ; b.Watched() && published < 10; published++ {
		b.Publish(large)
	}
	if published > 3 {
		t.Errorf("%d large events waited where 10 small ones may", published)
	}
}

// TestWatcherRests: a watcher that pauses gets all events that came meanwhile,
// and the pause does not delay its end.
func TestWatcherRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rest = 10 * time.Millisecond
		b := NewBroadcaster(100*noticeOctets, rest)
		events := b.Watch(t.Context(), SubscriberFilter{})
		began := time.Now()
		b.Publish(event(0))
		seen := 0
		for range events {
			if seen++; seen == 3 {
				break
			}
			if seen == 1 {
				b.Publish(event(1))
				b.Publish(event(2))
			}
		}
		if took := time.Since(began); took != rest {
			t.Errorf("took %v for three events with a rest of %v between", took, rest)
		}
	})
}

// TestNoticeIsEncodedOnce: an event is encoded once for all watchers.
func TestNoticeIsEncodedOnce(t *testing.T) {
	t.Parallel()
	n := &Notice{Event: event(7)}
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			got, err := n.Encoded(func(e *Event) ([]byte, error) { made.Add(1); return []byte{byte(e.SessionsEnded)}, nil })
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
		b := NewBroadcaster(1*noticeOctets, 0)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		events := b.Watch(ctx, SubscriberFilter{})
		done.Go(func() {
			for _, err := range events {
				t.Errorf("saw something: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		done.Wait()
		if b.Watched() {
			t.Error("the watcher is still there")
		}
	})
}

func TestLeavingTheRangeEndsTheWatch(t *testing.T) {
	t.Parallel()
	b := NewBroadcaster(1*noticeOctets, 0)
	events := b.Watch(t.Context(), SubscriberFilter{})
	b.Publish(event(1))
	for range events {
		break
	}
	if b.Watched() {
		t.Error("the watcher is still there")
	}
}

func TestBroadcastConcurrently(t *testing.T) {
	t.Parallel()
	b := NewBroadcaster(4*noticeOctets, 0)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for n := range 200 {
				b.Publish(event(n))
			}
		})
		all.Go(func() {
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				for range b.Watch(ctx, SubscriberFilter{}) {
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
				b.Publish(event(0))
			}
		}
	})
	all.Wait()
	close(stop)
	feeder.Wait()
}
