package session

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Limits of a watcher: its backlog in octets, some 1,500 events, and the
// minimum time between two wake-ups while the engine is busy.
const (
	watchBacklog = 2 << 20
	watchRest    = 10 * time.Millisecond
)

// sessionCounter counts the conntrack entries of an inside address.
type sessionCounter interface {
	SessionCount(inside netip.Addr) int
}

// removalObserver counts removals, for metrics.
type removalObserver interface {
	Removed(group string, reason subscriber.Reason)
	Observed(group string, reason subscriber.Reason, sessions int) // removals that RemovalOn would have carried out
	StopToCut(time.Duration)                                       // from the deletion of the record to the closed gate
	StopToReaped(time.Duration)                                    // from the deletion of the record to the proof that no entry is left
}

// reports are the readers of the stream of transitions: metrics, log, the list
// of observed removals, and watchers.
type reports struct {
	*sharedState
	kernel   sessionCounter
	observer removalObserver
	events   *inspect.Broadcaster
	clients  clientCounts // of the records in force
	observed wouldRemove  // removals that RemovalOn would have carried out
}

// emitLocked passes a transition to all readers.
func (r *reports) emitLocked(t *lifecycle.Transition) {
	r.measureLocked(t)
	if r.events.Watched() {
		if event, ok := r.eventLocked(t); ok {
			r.events.Publish(event)
		}
	}
}

// measureLocked counts a transition, and keeps an observed removal.
func (r *reports) measureLocked(t *lifecycle.Transition) {
	switch t.Kind {
	case inspect.EventCut:
		if _, _, at, ended := t.Slot.Ended(); ended {
			r.observer.StopToCut(t.At.Sub(at))
		}
	case inspect.EventReaped:
		if _, reason, at, ended := t.Slot.Ended(); ended {
			r.observer.StopToReaped(t.Proved.Sub(at))
			r.observer.Removed(t.Slot.Group(), reason)
		}
		if r.log.Enabled(context.Background(), slog.LevelDebug) {
			r.log.Debug("reaped", "inside", t.Slot.Inside(), "deleted", t.Deleted)
		}
	case inspect.EventObserved:
		would := t.Slot.Removal(inspect.RemovalObserved)
		would.Sessions = r.kernel.SessionCount(t.Slot.Inside())
		r.observed.add(would)
		r.observer.Observed(would.Record.Group, would.Reason, would.Sessions)
	}
}

// eventLocked returns the event that watchers get for a transition; ok is false
// for none.
func (r *reports) eventLocked(t *lifecycle.Transition) (e inspect.Event, ok bool) {
	e = inspect.Event{At: t.At, Kind: t.Kind, Reason: t.Reason}
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
		record, reason, _, ended := t.Slot.Ended()
		if !ended || t.Binding == nil {
			return e, false
		}
		e.Reason, e.SessionsEnded = reason, t.Deleted
		e.Subscriber = inspect.Subscriber{Record: record.Record(), Binding: &inspect.Binding{Binding: *t.Binding}}
	default: // about the subscriber whose binding is being torn down, if there is one
		e.Subscriber = r.viewLocked(t.Slot)
		if record, reason, _, ended := t.Slot.Ended(); ended {
			e.Reason, e.Subscriber.Record = reason, record.Record()
		}
	}
	return e, true
}

// viewLocked returns the slot's record with its binding.
func (r *reports) viewLocked(s *lifecycle.Slot) inspect.Subscriber {
	v := inspect.Subscriber{Record: s.Record()}
	if b, ok := r.life.Engine().Live(s.Group(), s.Inside()); ok && !s.Awaited() {
		v.Binding = &inspect.Binding{Binding: b, Sessions: r.kernel.SessionCount(s.Inside())}
	} else {
		v.Pending = r.life.Engine().IsPending(s.Group(), s.Inside())
	}
	return v
}
