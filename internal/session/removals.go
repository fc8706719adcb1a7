package session

import (
	"context"
	"slices"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Removals returns up to limit removals behind after that are not, or not yet,
// carried out.
func (m *Manager) Removals(_ context.Context, f inspect.RemovalFilter, after inspect.RemovalKey, limit int) ([]inspect.Removal, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.restoredRLocked(); err != nil {
		return nil, err
	}
	page := smallest[inspect.Removal]{limit: limit, compare: func(a, b inspect.Removal) int {
		return a.Key().Compare(b.Key())
	}}
	m.eachRemovalRLocked(f, func(r inspect.Removal) {
		if r.Key().Compare(after) > 0 {
			page.add(r)
		}
	})
	return page.kept, nil
}

// eachRemovalRLocked yields the matching removals, in no order, from all that
// keep some.
func (m *Manager) eachRemovalRLocked(f inspect.RemovalFilter, yield func(inspect.Removal)) {
	for _, source := range []func(inspect.RemovalFilter, func(inspect.Removal)){
		m.heldRemovalsRLocked, m.graceRLocked, m.observedRLocked,
	} {
		source(f, func(r inspect.Removal) {
			if f.Match(&r) {
				yield(r)
			}
		})
	}
}

// heldRemovalsRLocked yields what the guards hold.
func (m *Manager) heldRemovalsRLocked(f inspect.RemovalFilter, yield func(inspect.Removal)) {
	if f.Kind != 0 && f.Kind != inspect.RemovalHeld || !m.holdsRLocked() {
		return
	}
	m.eachMatchingRLocked(inspect.SubscriberFilter{Group: f.Group, NAS: f.NAS, Inside: f.Inside}, func(s *slot) {
		if s.packed.RemovalHeld() == subscriber.ReasonNone {
			return
		}
		record := *s.record()
		r := inspect.Removal{
			Kind: inspect.RemovalHeld, Record: record, Reason: s.packed.RemovalHeld(),
			Sessions: m.kernel.SessionCount(s.inside()),
		}
		if record.Version != "" { // it was last written to be held
			r.Since = subscriber.VersionTime(record.Version)
		}
		yield(r)
	})
}

// holdsRLocked reports whether any removal is held.
func (m *Manager) holdsRLocked() bool {
	for _, g := range m.groups {
		for _, n := range g.held {
			if n > 0 {
				return true
			}
		}
	}
	return false
}

func (m *Manager) heldKeys(f inspect.RemovalFilter) ([]subscriber.Key, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.restoredRLocked(); err != nil {
		return nil, err
	}
	f.Kind = inspect.RemovalHeld
	var keys []subscriber.Key
	m.eachRemovalRLocked(f, func(r inspect.Removal) { keys = append(keys, r.Record.Key) })
	slices.SortFunc(keys, inspect.CompareKeys)
	return keys, nil
}

// ConfirmRemovals ends the matching subscribers whose removal is held, and returns
// how many, once the engine has taken it.
func (m *Manager) ConfirmRemovals(ctx context.Context, f inspect.RemovalFilter) (int, error) {
	keys, err := m.heldKeys(f)
	if err != nil {
		return 0, err
	}
	ended, err := m.store.ConfirmRemovals(ctx, keys)
	m.decided(ended)
	if err != nil {
		return len(ended), unavailable(err)
	}
	m.awaitTails(ctx)
	return len(ended), nil
}

// RefuseRemovals lets the matching subscribers stay whose removal is held, and
// returns how many, once the engine has taken it.
func (m *Manager) RefuseRemovals(ctx context.Context, f inspect.RemovalFilter) (int, error) {
	keys, err := m.heldKeys(f)
	if err != nil {
		return 0, err
	}
	kept, err := m.store.RefuseRemovals(ctx, keys)
	m.decided(kept)
	if err != nil {
		return len(kept), unavailable(err)
	}
	m.awaitTails(ctx)
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := range kept {
		r := kept[i]
		reason := r.RemovalHeld
		r.RemovalHeld = subscriber.ReasonNone
		packed := r.Pack()
		m.publishChangeLocked(inspect.EventRemovalRefused, reason, &packed)
	}
	return len(kept), nil
}

// decided tells the guards that a person has decided about removals that they
// held, which ends the wave.
func (m *Manager) decided(records []subscriber.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range records {
		if g := m.groups[records[i].Group]; g != nil {
			g.guard.Decided(records[i].RemovalHeld)
		}
	}
}

// awaitTails waits, for a bounded time, until all feeds were taken to their
// present ends.
func (m *Manager) awaitTails(ctx context.Context) {
	for _, g := range m.syncedGroups() {
		if tail, err := m.store.Tail(ctx, g.name); err == nil {
			m.await(ctx, g, tail)
		}
	}
}
