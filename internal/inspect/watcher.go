package inspect

import (
	"context"
	"net/netip"
	"time"
)

// watcher is one watch.
type watcher struct {
	Watch
	next  uint64        // number of the next event to take; under the broadcaster's lock
	waits bool          // it has taken all events that it wants; likewise
	over  bool          // likewise
	news  chan struct{} // has room for one
	begin Position      // where the watch began
	told  toldGaps
}

// toldGaps are the newest events at the time when a watcher was told to list again. A list since
// then shows all changes of records up to there, so gaps before say nothing new.
type toldGaps struct {
	all uint64            // of a gap in the events of any group
	of  map[string]uint64 // by group
}

// covers reports whether a gap that was told covers a later one.
func (t *toldGaps) covers(n *Notice) bool {
	return n.gap.ListAgain && n.seq <= max(t.all, t.of[n.gap.Group])
}

// add notes that the watcher is told of a gap, while that event is the newest.
func (t *toldGaps) add(g *Gap, newest uint64) {
	switch {
	case !g.ListAgain:
	case g.Group == "":
		t.all = newest
	default:
		if t.of == nil {
			t.of = map[string]uint64{}
		}
		t.of[g.Group] = newest
	}
}

func (w *watcher) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// wants reports whether an event, or a gap, is for the watcher.
func (w *watcher) wants(n *Notice) bool {
	if n.gap != nil {
		return matches(w.Filter.Group, n.gap.Group)
	}
	return w.Match(&n.Event)
}

// fewNotices is the number of events taken at once from which on a wake-up
// costs less than handling the events.
const fewNotices = 64

// togetherMost is the most events of a message that has several: in the usual size they fill a
// frame of HTTP/2 or two, and a stalled reader keeps no more.
const togetherMost = 32

// read yields the watcher's messages until its watch is over.
func (b *Broadcaster) read(ctx context.Context, w *watcher, yield func(Message, error) bool) {
	told := time.Now() // time of the last message
	tell := func(m Message, err error) bool {
		more := yield(m, err) && err == nil
		told = time.Now()
		return more
	}
	if (w.Gaps || w.Progress > 0) && !tell(Message{Position: w.begin}, nil) {
		return
	}
	var space [fewNotices]*Notice
	room := space[:]
	if w.Together {
		room = space[:togetherMost:togetherMost]
	}
	for ctx.Err() == nil {
		t := b.drain(w, room[:0])
		switch {
		case t.missed > 0:
			w.told.all = b.newest()
			if !tell(w.gap(Gap{Cause: GapBehind, Missed: t.missed, ListAgain: true}, t.place, ErrLagging)) {
				return
			}
			continue
		case t.over:
			return
		}
		if w.Together {
			if !b.tellTogether(ctx, w, t.notices, tell) {
				return
			}
		} else if !b.tellEach(ctx, w, t.notices, tell) {
			return
		}
		busy, rests := w.Busy != nil && w.Busy(), len(t.notices) == 0
		if busy && rests || w.Progress > 0 && time.Since(told) >= w.Progress {
			if !tell(Message{Position: t.place.position()}, nil) {
				return
			}
		}
		switch {
		case busy:
		case rests:
			w.await(ctx, told)
		case len(t.notices) < cap(room):
			b.pause(ctx)
		}
	}
}

// tellEach tells notices in a message each. It returns false when the watch is over.
func (b *Broadcaster) tellEach(ctx context.Context, w *watcher, notices []*Notice, tell func(Message, error) bool) bool {
	for i, n := range notices {
		notices[i] = nil // a stalled reader keeps none but the one that it has
		if !w.wants(n) || n.gap != nil && !b.news(w, n) {
			continue
		}
		if ctx.Err() != nil || !tell(w.message(n)) {
			return false
		}
	}
	return true
}

// tellTogether tells notices in one message, or in several around gaps. It returns false when the
// watch is over.
func (b *Broadcaster) tellTogether(ctx context.Context, w *watcher, notices []*Notice, tell func(Message, error) bool) bool {
	wanted := notices[:0] // in the place of those before
	flush := func() bool {
		some := wanted
		wanted = wanted[:0]
		return len(some) == 0 || ctx.Err() == nil && tell(Message{Together: some}, nil)
	}
	for i, n := range notices {
		notices[i] = nil
		switch {
		case !w.wants(n):
		case n.gap == nil:
			wanted = append(wanted, n)
		case b.news(w, n):
			if !flush() || !tell(w.message(n)) {
				return false
			}
		}
	}
	return flush()
}

// news reports whether a gap is news for the watcher, which is told of it then.
func (b *Broadcaster) news(w *watcher, n *Notice) bool {
	if w.told.covers(n) {
		return false
	}
	w.told.add(n.gap, b.newest())
	return true
}

// message returns the watcher's message of an event or a gap.
func (w *watcher) message(n *Notice) (Message, error) {
	if n.gap == nil {
		return Message{Notice: n}, nil
	}
	return w.gap(*n.gap, placed{n.run, n.seq, n.feeds}, ErrListAgain)
}

// gap returns the watcher's message of a gap, or the error that ends its watch.
func (w *watcher) gap(g Gap, at placed, end error) (Message, error) {
	if !w.Gaps {
		return Message{}, end
	}
	return Message{Gap: &g, Position: at.position()}, nil
}

// placed is a Position whose feeds are not listed yet.
type placed struct {
	run, seq uint64
	feeds    FeedPositions
}

func (p *placed) position() Position { return Position{Run: p.run, Seq: p.seq, Feeds: p.feeds.List()} }

// drained is a look of a watcher at the events.
type drained struct {
	notices []*Notice
	place   placed // behind these
	missed  uint64 // number of events that it does not get, because the first of them are gone
	over    bool   // the watch is over, and there are no more events
}

// drain returns the watcher's next events.
func (b *Broadcaster) drain(w *watcher, room []*Notice) (t drained) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.firstLocked()
	if w.waits { // none of the events since then is for it
		w.next = b.next
	}
	if w.next < first {
		t.missed, w.next = b.next-w.next, b.next
		t.place = placed{b.o.Run, b.next - 1, b.feeds}
		return t
	}
	waiting := b.kept[w.next-first:]
	t.notices = append(room, waiting[:min(len(waiting), cap(room))]...)
	w.next += uint64(len(t.notices))
	if len(t.notices) > 0 {
		last := t.notices[len(t.notices)-1]
		t.place = placed{last.run, last.seq, last.feeds}
		return t
	}
	t.place, t.over = placed{b.o.Run, b.next - 1, b.feeds}, w.over || b.closed
	if !w.waits && !t.over {
		b.waiting.add(w)
	}
	return t
}

// waiters are the watchers that wait for an event, by a field of their filter, so that an
// event costs no look at those of other subscribers.
type waiters map[waitField]map[*watcher]struct{}

// waitField is the field of a filter by which a watcher waits: the first that is set, or none.
type waitField struct {
	inside    netip.Addr
	user, nas string
}

func (w *watcher) field() waitField {
	switch f := &w.Filter; {
	case f.Inside.IsValid() && f.Inside.IsSingleIP():
		return waitField{inside: f.Inside.Addr()}
	case f.UserName != "":
		return waitField{user: f.UserName}
	default:
		return waitField{nas: f.NAS}
	}
}

func (ws waiters) add(w *watcher) {
	w.waits = true
	some := ws[w.field()]
	if some == nil {
		some = map[*watcher]struct{}{}
		ws[w.field()] = some
	}
	some[w] = struct{}{}
}

func (ws waiters) remove(w *watcher) {
	w.waits = false
	if delete(ws[w.field()], w); len(ws[w.field()]) == 0 {
		delete(ws, w.field())
	}
}

// release wakes the watchers that want a notice, to take it next.
func (ws waiters) release(n *Notice) {
	if n.gap != nil {
		for f := range ws {
			ws.releaseOf(f, n)
		}
		return
	}
	r := &n.Subscriber.Record
	for i, f := range [...]waitField{{inside: r.Inside}, {user: r.UserName}, {nas: r.NAS}, {}} {
		if i == 3 || f != (waitField{}) {
			ws.releaseOf(f, n)
		}
	}
}

func (ws waiters) releaseOf(f waitField, n *Notice) {
	for w := range ws[f] {
		if w.wants(n) {
			ws.remove(w)
			w.next = n.seq
			w.wake()
		}
	}
}

// await waits for news, or until it is time for a message of progress.
func (w *watcher) await(ctx context.Context, told time.Time) {
	var due <-chan time.Time
	if w.Progress > 0 {
		timer := time.NewTimer(w.Progress - time.Since(told))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-w.news:
	case <-due:
	case <-ctx.Done():
	}
}

func (b *Broadcaster) pause(ctx context.Context) {
	if b.o.Rest <= 0 {
		return
	}
	timer := time.NewTimer(b.o.Rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
