package session

import (
	"log/slog"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// effects implements lifecycle.Effects: it queues requests for the executors,
// and passes transitions to the reports. Its methods are called with the
// Manager's lock held.
type effects struct {
	log     *slog.Logger
	lock    *wakingLock
	work    *executors
	idle    *idleWatch
	timers  *lifeTimers
	lookUp  func(subscriber.Key, subscriber.Reason)
	reports *reports
}

// Store implements lifecycle.Effects.
func (e effects) Store(w lifecycle.Write) { enqueue(e.lock, e.work.saves, w) }

// Program implements lifecycle.Effects.
func (e effects) Program(w lifecycle.Work) { enqueue(e.lock, e.work.opens, w) }

// Close implements lifecycle.Effects.
func (e effects) Close(w lifecycle.Work) { enqueue(e.lock, e.work.cuts, w) }

// Reap implements lifecycle.Effects.
func (e effects) Reap(w lifecycle.Work) { enqueue(e.lock, e.work.reaps, w) }

// AskIdle implements lifecycle.Effects.
func (e effects) AskIdle(d *lifecycle.Drain) { enqueue(e.lock, e.idle.asks, d) }

// LookUp implements lifecycle.Effects.
func (e effects) LookUp(k subscriber.Key, why subscriber.Reason) { e.lookUp(k, why) }

// WakeTimers implements lifecycle.Effects.
func (e effects) WakeTimers() { signal(e.timers.wake) }

// Online implements lifecycle.Effects.
func (e effects) Online(client string, change int) { e.reports.clients.add(client, change) }

// Fault implements lifecycle.Effects.
func (e effects) Fault(what string, key subscriber.Key, err error) {
	e.log.Error(what, "group", key.Group, "inside", key.Inside, "error", err)
}

// Emit implements lifecycle.Effects.
func (e effects) Emit(t lifecycle.Transition) { e.reports.emitLocked(&t) }
