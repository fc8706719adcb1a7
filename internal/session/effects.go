package session

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/queue"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// effects implements lifecycle.Effects: it queues requests for the executors,
// and passes transitions to the reports. Its methods are called with the
// Manager's lock held.
type effects struct {
	*reports // implement Emit and Online
	work     *executors
	idle     *idleWatch
	growth   *growthWatch
	timers   *lifeTimers
	mappings *mappingKeeper
	asks     *askKeeper
	lookUp   func(subscriber.Key, subscriber.Reason)
}

// Store implements lifecycle.Effects.
func (e *effects) Store(w lifecycle.Write) { enqueue(&e.mu, e.work.saves, w) }

// Program implements lifecycle.Effects.
func (e *effects) Program(w lifecycle.Work) {
	if w.Slot.Moves() {
		enqueue(&e.mu, e.growth.pins.moves, w)
		return
	}
	enqueue(&e.mu, e.work.opens, w)
}

// Close implements lifecycle.Effects.
func (e *effects) Close(w lifecycle.Work) { enqueue(&e.mu, e.work.cuts, w) }

// Reap implements lifecycle.Effects.
func (e *effects) Reap(w lifecycle.Work) { enqueue(&e.mu, e.work.reaps, w) }

// AskIdle implements lifecycle.Effects.
func (e *effects) AskIdle(d *lifecycle.Drain) { enqueue(&e.mu, e.idle.asks, d) }

// AskVacant implements lifecycle.Effects.
func (e *effects) AskVacant(p *lifecycle.Part) { enqueue(&e.mu, e.growth.parts, p) }

// LookUp implements lifecycle.Effects.
func (e *effects) LookUp(k subscriber.Key, why subscriber.Reason) { e.lookUp(k, why) }

// WakeTimers implements lifecycle.Effects.
func (e *effects) WakeTimers() { signal(e.timers.wake) }

// Fault implements lifecycle.Effects.
func (e *effects) Fault(what string, key subscriber.Key, err error) {
	e.log.Error(what, "group", key.Group, "inside", key.Inside, "error", err)
}

// The lock that wakes the executors.

// wakingLock is the lock of the life cycle. Unlock wakes the executors that got
// work while the lock was held. Woken earlier, each would take the first piece
// and block on this lock.
type wakingLock struct {
	sync.RWMutex
	given []waker // queues that got work
}

// waker is the queue of an executor.
type waker interface{ Wake() }

// enqueue puts work into a queue while the lock is held.
func enqueue[T any](l *wakingLock, q *queue.Queue[T], item T) {
	q.Add(item)
	if !slices.Contains(l.given, waker(q)) {
		l.given = append(l.given, q)
	}
}

// Unlock releases the lock, and wakes the executors that got work.
func (l *wakingLock) Unlock() {
	var room [8]waker
	wakes := append(room[:0], l.given...)
	l.given = l.given[:0]
	l.RWMutex.Unlock()
	for _, q := range wakes {
		q.Wake()
	}
}

// Readers of transitions: metrics, log, watchers.

// Events for watchers: the octets of those that are kept, some 20,000, for how long they are
// after the last watcher left, and the minimum time between two wake-ups of a watcher while
// the engine is busy.
const (
	eventOctets = 32 << 20
	eventsKept  = 5 * time.Minute
	watchRest   = 10 * time.Millisecond
)

// sessionCounter counts the conntrack entries of an inside address.
type sessionCounter interface {
	SessionCount(inside netip.Addr) int
}

// removalObserver counts removals, for metrics.
type removalObserver interface {
	Removed(group string, reason subscriber.Reason)
	Observed(group string, reason subscriber.Reason, sessions int) // removals that RemovalOn would have carried out
	Resized(group string, how inspect.Growth)                      // a subscriber has a block more or less, or was refused one
	StopToCut(time.Duration)                                       // from the deletion of the record until no packet passed
	StopToReaped(time.Duration)                                    // from the deletion of the record to the proof that no entry is left
}

// reports are the readers of the stream of transitions: metrics, log, the list
// of observed removals, and watchers.
type reports struct {
	*sharedState
	ports    *portWatch
	kernel   sessionCounter
	observer removalObserver
	events   *inspect.Broadcaster
	places   *eventPlaces
	clients  clientCounts // of the records in force
	observed wouldRemove  // removals that RemovalOn would have carried out
	endings  *endingLog
	refused  *refusalMemory
}

// Emit implements lifecycle.Effects. It counts a transition, keeps an observed
// removal, and tells watchers. The Manager's lock is held; for an event other than
// EventObserved it may be held for reading.
func (r *reports) Emit(t lifecycle.Transition) {
	r.noteEnding(&t)
	switch t.Kind {
	case inspect.EventReaped:
		if t.Binding != nil {
			r.ports.ended(t.Binding)
		}
		if _, why, at, ended := t.Slot.Ended(); ended {
			if t.Binding != nil && t.Binding.Receipt != nil {
				r.observer.StopToCut(t.Binding.Receipt.CutAt.Sub(at))
			}
			r.observer.StopToReaped(t.Proved.Sub(at))
			r.observer.Removed(t.Slot.Group(), why.Reason)
		}
		if r.log.Enabled(context.Background(), slog.LevelDebug) {
			r.log.Debug("reaped", "inside", t.Slot.Inside(), "deleted", t.Deleted)
		}
	case inspect.EventBlockAdded, inspect.EventBlockReturned, inspect.EventBlockRefused:
		r.observer.Resized(t.Slot.Group(), t.Growth)
		if t.Kind == inspect.EventBlockRefused {
			r.refused.note(t.Slot.Inside(), inspect.LimitBlockPorts, t.At)
			if g := r.groups[t.Slot.Group()]; g != nil {
				g.refusals++
			}
		}
	case inspect.EventObserved:
		would := t.Slot.Removal(inspect.RemovalObserved)
		would.Sessions = r.kernel.SessionCount(t.Slot.Inside())
		r.observed.add(would)
		r.observer.Observed(would.Record.Group, would.Reason, would.Sessions)
	}
	if r.events.Watched() {
		if event, ok := r.eventLocked(&t); ok {
			r.events.Publish(event, r.places.behindRLocked(t.Kind))
		}
		if t.Record != nil && r.places.besideFeedLocked(t.Kind, t.Record.Group()) {
			g := r.groups[t.Record.Group()]
			g.beside.untold = true // the feed brings the same later, or never
			r.tellBesideLocked(g, r.now())
		}
	}
}

// eventLocked returns the event that watchers get for a transition; ok is false
// for none.
func (r *reports) eventLocked(t *lifecycle.Transition) (e inspect.Event, ok bool) {
	e = inspect.Event{At: t.At, Kind: t.Kind, End: t.End, Limits: t.Limits, Late: t.Outdated}
	switch {
	case t.Record != nil: // about the record itself
		if t.Slot != nil {
			e.Subscriber = r.viewLocked(t.Slot)
		} else {
			e.Subscriber.Record = t.Record.Record()
		}
	case t.Kind == inspect.EventReleased:
		e.Subscriber.Record = lifecycle.HolderRecord(t.Binding.Group, t.Binding.Holder)
		e.Subscriber.Binding = &inspect.Binding{Binding: *t.Binding}
	case t.Kind == inspect.EventReaped:
		record, why, _, ended := t.Slot.Ended()
		if !ended || t.Binding == nil {
			return e, false
		}
		e.End, e.SessionsEnded = why, t.Deleted
		e.Subscriber = inspect.Subscriber{Record: record.Record(), Binding: &inspect.Binding{Binding: *t.Binding}}
	default: // about the subscriber whose binding is being torn down, if there is one
		e.Subscriber = r.viewLocked(t.Slot)
		if record, why, _, ended := t.Slot.Ended(); ended {
			e.End, e.Subscriber.Record = why, record.Record()
		}
	}
	return e, true
}

// loseLocked tells watchers that events of a group are missing.
func (r *reports) loseLocked(group string) {
	r.places.movedLocked()
	r.events.Lose(inspect.Gap{Cause: inspect.GapFeed, Group: group, ListAgain: true},
		inspect.FeedPositions{Shared: r.places.listRLocked()})
}

// tellBesideLocked tells watchers of the changes beside a group's feed that they were not told
// of, if the last gap of that kind is long enough ago: a comparison may find many.
func (r *reports) tellBesideLocked(g *group, now time.Time) {
	if b := &g.beside; b.untold && now.Sub(b.toldAt) >= besideRest {
		b.untold, b.toldAt = false, now
		r.loseLocked(g.Name)
	}
}

// viewLocked returns the slot's record with its binding.
func (r *reports) viewLocked(s *lifecycle.Slot) inspect.Subscriber {
	v := inspect.Subscriber{Record: s.Record()}
	if b, ok := r.life.Engine().Live(s.Group(), s.Inside()); ok && !s.Awaited() {
		v.Binding = &inspect.Binding{Binding: b, Sessions: r.kernel.SessionCount(s.Inside()), End: r.endOfLocked(&b)}
	} else {
		v.Pending = r.life.Engine().IsPending(s.Group(), s.Inside())
	}
	return v
}

// endOfLocked returns why a live binding is being torn down; the zero End if it is not.
func (r *reports) endOfLocked(b *nat.Binding) subscriber.End {
	if b.State == nat.Active {
		return subscriber.End{}
	}
	if s := r.life.Slot(b.Inside); s != nil {
		_, why, _, _ := s.Ended()
		return why
	}
	return subscriber.End{}
}

// clientCounts counts the records in force by the RADIUS client that reports
// them. It has a lock of its own, because accounting workers read it.
type clientCounts struct {
	mu     sync.RWMutex
	counts map[string]int
}

// Online implements lifecycle.Effects.
func (r *reports) Online(client string, change int) {
	c := &r.clients
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.counts[client] + change; n != 0 {
		c.counts[client] = n
	} else {
		delete(c.counts, client)
	}
}

func (c *clientCounts) of(client string) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.counts[client]
}
