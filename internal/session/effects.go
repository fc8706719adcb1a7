package session

import (
	"context"
	"log/slog"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// effects hands what the life cycle asks for to the executors, and what it tells to all
// that report it. Its methods are called with the Manager's lock held.
type effects struct{ m *Manager }

// Store implements lifecycle.Effects.
func (e effects) Store(w lifecycle.Write) { give(e.m, e.m.saves, w) }

// Program implements lifecycle.Effects.
func (e effects) Program(w lifecycle.Work) { give(e.m, e.m.opens, w) }

// Close implements lifecycle.Effects.
func (e effects) Close(w lifecycle.Work) { give(e.m, e.m.cuts, w) }

// Reap implements lifecycle.Effects.
func (e effects) Reap(w lifecycle.Work) { give(e.m, e.m.reaps, w) }

// AskIdle implements lifecycle.Effects.
func (e effects) AskIdle(d *lifecycle.Drain) { give(e.m, e.m.idlers, d) }

// LookUp implements lifecycle.Effects.
func (e effects) LookUp(k subscriber.Key, why subscriber.Reason) { e.m.missing.push(absentKey{k, why}) }

// WakeTimers implements lifecycle.Effects.
func (e effects) WakeTimers() { signal(e.m.timers) }

// Online implements lifecycle.Effects.
func (e effects) Online(client string, change int) { e.m.clients.add(client, change) }

// Fault implements lifecycle.Effects.
func (e effects) Fault(what string, key subscriber.Key, err error) {
	e.m.log.Error(what, "group", key.Group, "inside", key.Inside, "err", err)
}

// Emit implements lifecycle.Effects: metrics, log, the list of observed removals and
// watchers read the one stream of transitions.
func (e effects) Emit(t lifecycle.Transition) {
	e.m.measureLocked(&t)
	if e.m.events.Watched() {
		if event, ok := e.m.eventLocked(&t); ok {
			e.m.events.Publish(event)
		}
	}
}

// measureLocked counts a transition, and keeps a removal that was only observed.
func (m *Manager) measureLocked(t *lifecycle.Transition) {
	switch t.Kind {
	case inspect.EventCut:
		if _, _, at, ended := t.Slot.Ended(); ended {
			m.observer.StopToCut(t.At.Sub(at))
		}
	case inspect.EventReaped:
		if _, reason, at, ended := t.Slot.Ended(); ended {
			m.observer.StopToReaped(t.Proved.Sub(at))
			m.observer.Removed(t.Slot.Group(), reason)
		}
		if m.log.Enabled(context.Background(), slog.LevelDebug) {
			m.log.Debug("reaped", "inside", t.Slot.Inside(), "deleted", t.Deleted)
		}
	case inspect.EventObserved:
		r := t.Slot.Removal(inspect.RemovalObserved)
		r.Sessions = m.kernel.SessionCount(t.Slot.Inside())
		m.observed.add(r)
		m.observer.Observed(r.Record.Group, r.Reason, r.Sessions)
	}
}

// eventLocked is what watchers are told of a transition; ok is false for nothing.
func (m *Manager) eventLocked(t *lifecycle.Transition) (e inspect.Event, ok bool) {
	e = inspect.Event{At: t.At, Kind: t.Kind, Reason: t.Reason}
	switch {
	case t.Record != nil: // of the record itself
		if t.Slot != nil {
			e.Subscriber = m.viewLocked(t.Slot)
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
	default: // of the subscriber whose binding is being torn down, while there is one
		e.Subscriber = m.viewLocked(t.Slot)
		if record, reason, _, ended := t.Slot.Ended(); ended {
			e.Reason, e.Subscriber.Record = reason, record.Record()
		}
	}
	return e, true
}
