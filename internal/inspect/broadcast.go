package inspect

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Broadcaster hands events to any number of watchers without ever waiting for
// one: a watcher that falls behind its limit is ended with ErrLagging.
type Broadcaster struct {
	limit  int           // octets that a watcher may be behind
	rest   time.Duration // pause of a watcher after it took its waiting events
	active atomic.Int32  // spares publishers the lock while there is no watcher

	mu       sync.Mutex
	watchers []*watcher
	closed   bool
}

// watcher is one watch. All but filter is under the broadcaster's lock.
type watcher struct {
	filter  SubscriberFilter
	waiting []*Notice     // not taken yet
	octets  int           // of these, and of the events taken last
	taken   int           // octets of the events taken last
	news    chan struct{} // has room for one; closed when the watch is over
	place   int           // index in watchers, -1 when it is over
	lagged  bool
}

// NewBroadcaster returns a broadcaster whose watchers may fall behind by at
// most limit octets each. All share the memory of an event, but a watcher far
// behind may be the last to need it. A watcher that took few events pauses for
// rest before it takes the next, which bounds its wake-ups while many events
// come; 0 means no pause.
func NewBroadcaster(limit int, rest time.Duration) *Broadcaster {
	return &Broadcaster{limit: limit, rest: rest}
}

// Watched reports whether there is a watcher. If not, publishers need not make
// events.
func (b *Broadcaster) Watched() bool { return b.active.Load() > 0 }

// Publish hands the event to all watchers whose filter it passes. It never
// blocks.
func (b *Broadcaster) Publish(e Event) {
	if !b.Watched() {
		return
	}
	n, octets := &Notice{Event: e}, e.octets()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.watchers) - 1; i >= 0; i-- { // backwards, because it may shrink
		w := b.watchers[i]
		if !w.filter.Match(&n.Subscriber.Record) {
			continue
		}
		if w.octets+octets > b.limit {
			w.lagged = true
			b.dropLocked(w)
			continue
		}
		if len(w.waiting) == 0 {
			select {
			case w.news <- struct{}{}:
			default:
			}
		}
		w.waiting = append(w.waiting, n)
		w.octets += octets
	}
}

// Watch returns the events published from now on. The sequence ends without an
// error when ctx ends or the broadcaster is closed, and with ErrLagging when
// its reader was too slow. It can be ranged over once; the watch lasts until
// the range or ctx ends.
func (b *Broadcaster) Watch(ctx context.Context, f SubscriberFilter) iter.Seq2[*Notice, error] {
	w := &watcher{filter: f, news: make(chan struct{}, 1)}
	b.add(w)
	stop := context.AfterFunc(ctx, func() { b.drop(w) })
	return func(yield func(*Notice, error) bool) {
		defer b.drop(w)
		defer stop()
		for {
			<-w.news
			notices, over := b.drain(w)
			for _, n := range notices {
				if ctx.Err() != nil || !yield(n, nil) {
					return
				}
			}
			if over {
				break
			}
			if len(notices) < fewNotices {
				b.pause(ctx)
			}
		}
		if w.lagged {
			yield(nil, ErrLagging)
		}
	}
}

// fewNotices is the number of events taken at once from which on a wake-up
// costs less than handling the events.
const fewNotices = 64

func (b *Broadcaster) pause(ctx context.Context) {
	if b.rest <= 0 {
		return
	}
	timer := time.NewTimer(b.rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// drain returns the watcher's waiting events, and whether the watch is over.
func (b *Broadcaster) drain(w *watcher) (notices []*Notice, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	notices, w.waiting = w.waiting, nil
	w.octets -= w.taken
	w.taken = w.octets
	return notices, w.place < 0
}

// Close ends all present and future watches.
func (b *Broadcaster) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for len(b.watchers) > 0 {
		b.dropLocked(b.watchers[len(b.watchers)-1])
	}
}

func (b *Broadcaster) add(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.place = len(b.watchers); b.closed {
		w.place = -1
		close(w.news)
		return
	}
	b.watchers = append(b.watchers, w)
	b.active.Add(1)
}

func (b *Broadcaster) drop(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropLocked(w)
}

// dropLocked removes the watcher; the last one moves to its index.
func (b *Broadcaster) dropLocked(w *watcher) {
	if w.place < 0 {
		return
	}
	end := len(b.watchers) - 1
	b.watchers[w.place] = b.watchers[end]
	b.watchers[w.place].place = w.place
	b.watchers[end] = nil
	b.watchers = b.watchers[:end]
	w.place = -1
	b.active.Add(-1)
	close(w.news)
}
