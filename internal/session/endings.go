package session

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/walk"
)

// endingsMost is the number of endings that are kept: at most 23 MB (BenchmarkEndings).
const endingsMost = 50_000

// endingsAtOnce is the number of endings that a reader looks at before it yields the lock, for
// which cuts wait.
const endingsAtOnce = 512

// waveGap separates the ends for two restarts of a NAS.
const waveGap = time.Minute

// wavesMost bounds the NASes whose restarts are counted.
const wavesMost = 10_000

// endingLog keeps the newest endings in memory. It hears of them by transitions, so it has the
// order in which things happened.
type endingLog struct {
	mu     sync.Mutex // a leaf
	most   int
	ring   []endingEntry
	next   int                                   // the oldest one, once the ring is full
	newest uint64                                // the largest number
	open   map[netip.Addr]uint64                 // numbers of endings whose removal is not complete
	since  time.Time                             // every ending from then on was noted and is kept
	waves  map[inspect.NASKey]inspect.NASEndings // by NAS, for its last restart that ended any
}

// endingEntry is an ending, in some 450 octets with its texts.
type endingEntry struct {
	number  uint64
	record  subscriber.Packed
	why     subscriber.End
	at      time.Time
	blocks  nat.Blocks
	receipt *nat.Receipt
	resumed time.Time
}

func newEndingLog(most int, now time.Time) *endingLog {
	return &endingLog{
		most: most, newest: micros(now), open: map[netip.Addr]uint64{}, since: now, waves: map[inspect.NASKey]inspect.NASEndings{},
	}
}

// ended notes the end of a record. binding is the one that is torn down for it, nil for none.
func (l *endingLog) ended(r *subscriber.Packed, why subscriber.End, at time.Time, binding *nat.Binding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := endingEntry{record: *r, why: why, at: at}
	if binding != nil {
		e.blocks = binding.Blocks
	}
	number := l.addLocked(e, at)
	if binding != nil {
		l.open[r.Inside()] = number
	}
	if client, nas := r.Reporter(); why.Reason == subscriber.ReasonNASRestart && client != "" {
		l.countLocked(inspect.NASKey{Client: client, Name: nas}, at)
	}
}

// countLocked counts an end for a restart of a NAS.
func (l *endingLog) countLocked(nas inspect.NASKey, at time.Time) {
	n, known := l.waves[nas]
	if !known && len(l.waves) == wavesMost {
		return
	}
	if !known || at.Sub(n.Last) > waveGap {
		n = inspect.NASEndings{First: at}
	}
	n.Subscribers++
	n.Last = at
	l.waves[nas] = n
}

// reaped completes the ending of a binding, or notes it, where its record goes on.
func (l *endingLog) reaped(r *subscriber.Packed, why subscriber.End, at time.Time, binding *nat.Binding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	inside := r.Inside()
	number, open := l.open[inside]
	delete(l.open, inside)
	if !open {
		l.addLocked(endingEntry{record: *r, why: why, at: at, blocks: binding.Blocks, receipt: binding.Receipt}, at)
	} else if e := l.findLocked(number); e != nil {
		e.why, e.at, e.blocks, e.receipt = why, at, binding.Blocks, binding.Receipt
	}
}

// resumed notes that a subscriber is back, if its ending is not complete.
func (l *endingLog) resumed(inside netip.Addr, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number, open := l.open[inside]
	if !open {
		return
	}
	delete(l.open, inside)
	if e := l.findLocked(number); e != nil {
		e.resumed = at
	}
}

// micros returns a time as the number of an ending.
func micros(at time.Time) uint64 { return uint64(max(at.UnixMicro(), 0)) }

// addLocked adds an ending, and returns its number: its time in microseconds, or more, so that
// numbers go on growing after a restart. All are larger than the time of the start, also of an
// end that is told late, so that the holds of before the start come before them.
func (l *endingLog) addLocked(e endingEntry, at time.Time) uint64 {
	l.newest = max(l.newest+1, micros(at))
	e.number = l.newest
	if len(l.ring) < l.most {
		l.ring = append(l.ring, e)
		return e.number
	}
	lost := &l.ring[l.next]
	if !lost.at.Before(l.since) { // else it is of before the start
		l.since = lost.at.Add(1)
	}
	if l.open[lost.record.Inside()] == lost.number {
		delete(l.open, lost.record.Inside())
	}
	l.ring[l.next] = e
	l.next = (l.next + 1) % l.most
	return e.number
}

// entryLocked returns the i-th ending, the oldest first.
func (l *endingLog) entryLocked(i int) *endingEntry { return &l.ring[(l.next+i)%len(l.ring)] }

// beforeLocked returns the number of endings with a number below the given one.
func (l *endingLog) beforeLocked(number uint64) int {
	low, high := 0, len(l.ring)
	for low < high {
		if middle := (low + high) / 2; l.entryLocked(middle).number < number {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// findLocked returns the ending with a number, nil if it is not kept any more.
func (l *endingLog) findLocked(number uint64) *endingEntry {
	if i := l.beforeLocked(number); i < len(l.ring) && l.entryLocked(i).number == number {
		return l.entryLocked(i)
	}
	return nil
}

// seed adds the holds of before the start, of which no transition tells.
func (l *endingLog) seed(held []nat.Binding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held = slices.DeleteFunc(held, func(b nat.Binding) bool { return b.Receipt == nil || !b.Receipt.ReleasedAt.Before(l.since) })
	slices.SortFunc(held, func(a, b nat.Binding) int {
		return cmp.Or(a.ReleasedAt.Compare(b.ReleasedAt), a.Inside.Compare(b.Inside))
	})
	noted := append(slices.Clone(l.ring[l.next:]), l.ring[:l.next]...)
	held = held[max(0, len(held)+len(noted)-l.most):]
	older := endingLog{most: l.most, since: l.since}
	for i := range held {
		b := &held[i]
		r := lifecycle.HolderRecord(b.Group, b.Holder)
		older.addLocked(endingEntry{record: r.Pack(), why: b.Receipt.End, at: b.ReleasedAt, blocks: b.Blocks, receipt: b.Receipt}, b.ReleasedAt)
	}
	next := l.newest + 1
	if len(noted) > 0 {
		next = noted[0].number
	}
	for i := len(older.ring) - 1; i >= 0 && older.ring[i].number >= next; i-- { // many of one microsecond
		next--
		older.ring[i].number = next
	}
	l.ring, l.next = append(older.ring, noted...), 0
}

// page returns up to limit endings that match, the latest first, with numbers below the given
// one; 0 for all.
func (l *endingLog) page(f *inspect.EndingFilter, before uint64, limit int) (p inspect.Endings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.Since = l.since
	if before == 0 {
		before = math.MaxUint64
	}
	for left := l.beforeLocked(before); ; {
		for range min(left, endingsAtOnce) {
			left--
			e := l.entryLocked(left).view()
			if !f.Match(&e) {
				continue
			}
			if len(p.List) == limit {
				p.Next = p.List[limit-1].Number
				return p
			}
			p.List = append(p.List, e)
		}
		if left == 0 {
			return p
		}
		last := l.entryLocked(left).number
		walk.Yield(&l.mu)
		left = l.beforeLocked(last)
	}
}

func (e *endingEntry) view() inspect.Ending {
	return inspect.Ending{
		Number: e.number, Record: e.record.Record(), End: e.why, At: e.at, Blocks: e.blocks, Receipt: e.receipt, ResumedAt: e.resumed,
	}
}

// wave returns the ends for the last restart of a NAS that ended any.
func (l *endingLog) wave(nas inspect.NASKey) inspect.NASEndings {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waves[nas]
}

// noteEnding takes a transition. The Manager's lock is held.
func (r *reports) noteEnding(t *lifecycle.Transition) {
	if t.Outdated {
		return // the slot has another session, which goes on
	}
	switch t.Kind {
	case inspect.EventDeleted:
		at, binding := t.At, (*nat.Binding)(nil)
		if s := r.life.Slot(t.Record.Inside()); s != nil && s.Own() {
			_, why, ended, _ := s.Ended()
			b, ok := r.life.Engine().Live(s.Group(), s.Inside())
			if ok && why.Reason != subscriber.ReasonPoolRemoved { // else that end of the binding is an ending of its own
				at, binding = ended, &b
			}
		}
		r.endings.ended(t.Record, t.End, at, binding)
	case inspect.EventBound:
		r.endings.resumed(t.Slot.Inside(), t.At)
	case inspect.EventReaped:
		if record, why, at, ended := t.Slot.Ended(); ended && t.Binding != nil {
			r.endings.reaped(record, why, at, t.Binding)
		}
	}
}

// seedEndings waits until everything is restored, and then takes the holds of before the start
// into the log of endings.
func (r *reports) seedEndings(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ready:
	}
	var held []nat.Binding
	r.mu.RLock()
	for name := range r.groups {
		for from := (netip.Addr{}); ; {
			from = r.life.Engine().BindingsFrom(name, from, walk.Every, func(b nat.Binding) {
				if b.State == nat.Held && len(held) < 2*endingsMost {
					held = append(held, b)
				}
			})
			if !from.IsValid() {
				break
			}
			walk.Yield(r.mu.RLocker())
		}
	}
	r.mu.RUnlock()
	r.endings.seed(held)
	return nil
}

// Endings returns up to limit endings that match, the latest first, with numbers below before; 0
// for all.
func (v *Desk) Endings(_ context.Context, f inspect.EndingFilter, before uint64, limit int) (inspect.Endings, error) {
	v.shared.mu.RLock()
	err := v.readiness.restoredRLocked()
	v.shared.mu.RUnlock()
	if err != nil {
		return inspect.Endings{}, err
	}
	return v.reports.endings.page(&f, before, limit), nil
}
