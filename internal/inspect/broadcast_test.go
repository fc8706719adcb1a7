package inspect

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func event(n int) Event { return Event{SessionsEnded: n} }

func TestWatchSeesWhatFollowsIt(t *testing.T) {
	t.Parallel()
	b := NewBroadcaster(10)
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
	b := NewBroadcaster(10)
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
	b := NewBroadcaster(2)
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

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcaster(1)
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
	b := NewBroadcaster(1)
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
	b := NewBroadcaster(4)
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
	// Watchers of the tail wait for one more event each.
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
