package inspect

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
)

// Broadcaster hands events to any number of watchers without ever waiting for
// one: a watcher whose buffer is full is ended with ErrLagging.
type Broadcaster struct {
	buffer int
	active atomic.Int32 // spares publishers the lock while nobody watches

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	closed   bool
}

type watcher struct {
	filter SubscriberFilter
	events chan Event // closed when the watcher lags or the broadcaster ends
	lagged bool       // written before events is closed
}

// NewBroadcaster returns a broadcaster that lets each watcher fall behind by at
// most buffer events.
func NewBroadcaster(buffer int) *Broadcaster {
	return &Broadcaster{buffer: buffer, watchers: make(map[*watcher]struct{})}
}

// Watched reports whether anybody watches, so that publishers can spare
// themselves the making of events.
func (b *Broadcaster) Watched() bool { return b.active.Load() > 0 }

// Publish hands the event to all watchers that want it. It never blocks.
func (b *Broadcaster) Publish(e Event) {
	if !b.Watched() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watchers {
		if !w.filter.Match(&e.Subscriber.Record) {
			continue
		}
		select {
		case w.events <- e:
		default:
			w.lagged = true
			b.dropLocked(w)
		}
	}
}

// Watch returns the events published from now on. The sequence ends without an
// error when ctx does or the broadcaster is closed, and with ErrLagging when its
// reader was too slow. It can be ranged over once; a watch begun lasts until its
// range ends or ctx does.
func (b *Broadcaster) Watch(ctx context.Context, f SubscriberFilter) iter.Seq2[Event, error] {
	w := &watcher{filter: f, events: make(chan Event, b.buffer)}
	b.add(w)
	stop := context.AfterFunc(ctx, func() { b.drop(w) })
	return func(yield func(Event, error) bool) {
		defer b.drop(w)
		defer stop()
		for e := range w.events {
			if ctx.Err() != nil || !yield(e, nil) {
				return
			}
		}
		if w.lagged {
			yield(Event{}, ErrLagging)
		}
	}
}

// Close ends all watches, present and to come.
func (b *Broadcaster) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for w := range b.watchers {
		b.dropLocked(w)
	}
}

func (b *Broadcaster) add(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(w.events)
		return
	}
	b.watchers[w] = struct{}{}
	b.active.Add(1)
}

func (b *Broadcaster) drop(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropLocked(w)
}

func (b *Broadcaster) dropLocked(w *watcher) {
	if _, ok := b.watchers[w]; !ok {
		return
	}
	delete(b.watchers, w)
	b.active.Add(-1)
	close(w.events)
}
