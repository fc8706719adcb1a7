package inspect

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Broadcaster hands events to any number of watchers without ever waiting for one. It keeps
// the newest events for all of them together, by number: each watcher has only its place
// among them. So a watcher that comes back goes on where it was, and one that falls behind
// the oldest event learns how many it missed.
type Broadcaster struct {
	o      BroadcasterOptions
	active atomic.Bool // events are kept; spares publishers the lock while they are not

	mu       sync.Mutex
	kept     []*Notice     // the newest events, the oldest first
	octets   int           // of these
	listed   listedFeeds   // the newest list of positions
	next     uint64        // number of the next event
	since    uint64        // number of the first event since events are kept
	feeds    FeedPositions // behind the newest event
	watchers int
	waiting  waiters // those that have taken all events that they want
	idle     *time.Timer
	closed   bool
}

// listedFeeds is a list of positions that events share, with the octets of their tokens: with a
// thousand groups a token has more of them than its event.
type listedFeeds struct {
	FeedPositions
	token int
}

// BroadcasterOptions are the options of a Broadcaster.
type BroadcasterOptions struct {
	Run    uint64        // the run of the daemon, in positions
	Octets int           // required: memory of the events that are kept, for all watchers together
	Rest   time.Duration // optional: pause of a watcher that took few events, which bounds its wake-ups while many come
	Keep   time.Duration // optional: how long events are kept after the last watcher left
}

// NewBroadcaster returns a Broadcaster without watchers.
func NewBroadcaster(o BroadcasterOptions) *Broadcaster {
	return &Broadcaster{o: o, next: 1, waiting: waiters{}}
}

// NotKeptError says that the events behind a position are not there any more, or not of this
// run.
type NotKeptError struct {
	Restarted bool   // they are of another run
	Missed    uint64 // number of those that are gone; 0: unknown
}

func (e *NotKeptError) Error() string {
	if e.Restarted {
		return "the position is of another run of the daemon"
	}
	return "the events behind the position are not kept any more"
}

// Watched reports whether events are kept, because there are watchers, or were some a short
// time ago. If not, publishers need not make events.
func (b *Broadcaster) Watched() bool { return b.active.Load() }

// Watchers returns the number of watches.
func (b *Broadcaster) Watchers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.watchers
}

// Publish hands an event to all watchers, together with the positions in the feeds behind it.
// It never blocks.
func (b *Broadcaster) Publish(e Event, feeds FeedPositions) {
	if b.Watched() {
		b.publish(&Notice{Event: e, run: b.o.Run, feeds: feeds}, e.octets())
	}
}

// Lose tells all watchers of a gap in the events of a group. It never blocks.
func (b *Broadcaster) Lose(g Gap, feeds FeedPositions) {
	if b.Watched() {
		b.publish(&Notice{gap: &g, run: b.o.Run, feeds: feeds}, noticeOctets)
	}
}

func (b *Broadcaster) publish(n *Notice, octets int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.active.Load() {
		return
	}
	n.seq = b.next
	b.next++
	b.feeds = n.feeds
	b.weighLocked(n, octets)
	b.kept = append(b.kept, n)
	b.octets += n.octets
	for b.octets > b.o.Octets && len(b.kept) > 1 {
		b.forgetOldestLocked()
	}
	b.waiting.release(n)
}

// weighLocked sets the octets of a notice that comes next: its own, those of its token, and those
// of its list of positions, unless the notice before has the same list.
func (b *Broadcaster) weighLocked(n *Notice, octets int) {
	fresh := len(b.kept) == 0 || !n.feeds.shares(&b.listed.FeedPositions)
	if fresh {
		b.listed = listedFeeds{n.feeds, n.feeds.tokenOctets()}
		n.list = positionOctets * len(n.feeds.Shared)
	}
	if n.octets = octets + n.list; n.gap == nil {
		n.octets += b.listed.token
	}
}

// forgetOldestLocked forgets the oldest notice, of several. The next one takes over the octets of
// their common list.
func (b *Broadcaster) forgetOldestLocked() {
	old, next := b.kept[0], b.kept[1]
	if next.feeds.shares(&old.feeds) {
		next.list = old.list
		next.octets += next.list
		b.octets += next.list
	}
	b.octets -= old.octets
	b.kept[0] = nil
	b.kept = b.kept[1:]
}

// newest returns the number of the newest event.
func (b *Broadcaster) newest() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next - 1
}

// firstLocked returns the number of the oldest event that is kept, or of the next one.
func (b *Broadcaster) firstLocked() uint64 { return b.next - uint64(len(b.kept)) }

// Watch returns the events published from now on, or behind the position After of the
// request; a *NotKeptError if these are not all kept. feeds are the present positions in the
// feeds. The sequence ends without an error when ctx ends or the Broadcaster is closed. If the
// request does not ask for gaps, it ends with ErrLagging when its reader was too slow, and with
// ErrListAgain at another gap. With gaps or progress it begins with a message that has only
// the position where the watch began. It can be ranged over once; the watch lasts until the
// range or ctx ends.
func (b *Broadcaster) Watch(ctx context.Context, request Watch, feeds FeedPositions) (iter.Seq2[Message, error], error) {
	w := &watcher{Watch: request, news: make(chan struct{}, 1)}
	if err := b.add(w, feeds); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { b.drop(w) })
	return func(yield func(Message, error) bool) {
		defer b.drop(w)
		defer stop()
		b.read(ctx, w, yield)
	}, nil
}

// Close ends all present and future watches, once they have their events.
func (b *Broadcaster) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, some := range b.waiting {
		for w := range some {
			w.wake()
		}
	}
}

func (b *Broadcaster) add(w *watcher, feeds FeedPositions) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.next, w.begin = b.next, Position{Run: b.o.Run, Seq: b.next - 1, Feeds: feeds.List()}
	if w.After != nil {
		switch {
		case w.After.Run != b.o.Run:
			return &NotKeptError{Restarted: true}
		case w.After.Seq >= b.next, w.After.Seq+1 < b.since:
			return &NotKeptError{}
		case w.After.Seq+1 < b.firstLocked():
			return &NotKeptError{Missed: b.firstLocked() - w.After.Seq - 1}
		}
		w.next, w.begin = w.After.Seq+1, *w.After
	}
	b.feeds = feeds
	b.watchers++
	b.active.Store(true)
	if b.idle != nil {
		b.idle.Stop()
		b.idle = nil
	}
	return nil
}

func (b *Broadcaster) drop(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.over {
		return
	}
	w.over = true
	if w.waits {
		b.waiting.remove(w)
	}
	w.wake()
	if b.watchers--; b.watchers == 0 {
		b.idle = time.AfterFunc(b.o.Keep, b.forget)
	}
}

// forget ends the keeping of events, if there is no watcher any more. A number is left out,
// so that no position from before is taken for one without events behind it.
func (b *Broadcaster) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.watchers > 0 {
		return
	}
	b.active.Store(false)
	b.kept, b.octets, b.listed = nil, 0, listedFeeds{}
	b.next++
	b.since = b.next
}
