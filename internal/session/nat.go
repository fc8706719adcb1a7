package session

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
)

// Bindings returns up to limit bindings behind after, held ones included.
func (m *Manager) Bindings(_ context.Context, f inspect.BindingFilter, after inspect.BindingKey, limit int) ([]inspect.Binding, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.restoredRLocked(); err != nil {
		return nil, err
	}
	page := smallest[lsn.Binding]{limit: limit, compare: func(a, b lsn.Binding) int {
		return inspect.KeyOf(&a).Compare(inspect.KeyOf(&b))
	}}
	for _, name := range slices.Sorted(maps.Keys(m.groups)) {
		m.gatherRLocked(name, f, after, &page)
	}
	views := make([]inspect.Binding, len(page.kept))
	for i, b := range page.kept {
		views[i] = m.bindingViewLocked(b)
	}
	return views, nil
}

// gatherRLocked adds the group's bindings behind after to a page, until it is
// full: they come in the page's order, but for those of one inside address.
func (m *Manager) gatherRLocked(group string, f inspect.BindingFilter, after inspect.BindingKey, page *smallest[lsn.Binding]) {
	var from netip.Addr
	if group == after.Group {
		from = after.Inside
	}
	if f.Inside.IsValid() && from.Less(f.Inside.Addr()) {
		from = f.Inside.Masked().Addr()
	}
	for more := group >= after.Group; more && len(page.kept) < page.limit; breathe(m.mu.RLocker()) {
		beyond := false
		from = m.engine.BindingsFrom(group, from, breathEvery, func(b lsn.Binding) {
			beyond = f.Inside.IsValid() && !f.Inside.Contains(b.Inside)
			if f.Match(&b) && inspect.KeyOf(&b).Compare(after) > 0 && m.inForceLocked(&b) {
				page.add(b)
			}
		})
		more = from.IsValid() && !beyond
	}
}

// inForceLocked hides a binding that is allocated but not programmed yet: it is
// not ACTIVE before packets can use it.
func (m *Manager) inForceLocked(b *lsn.Binding) bool {
	if b.State != lsn.Active {
		return true
	}
	s := m.slots.at(b.Inside)
	return s != nil && s.phase != idle && !s.awaited()
}

func (m *Manager) bindingViewLocked(b lsn.Binding) inspect.Binding {
	v := inspect.Binding{Binding: b}
	if b.State != lsn.Held {
		v.Sessions = m.kernel.SessionCount(b.Inside)
	}
	return v
}

// LookupOutside returns whose a public port is now, or was at a time that the
// present bindings cover.
func (m *Manager) LookupOutside(_ context.Context, outside netip.Addr, port lsn.Port, at time.Time) (inspect.Binding, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.restoredRLocked(); err != nil {
		return inspect.Binding{}, err
	}
	b, ok := m.engine.AtOutside(outside, port)
	if at.IsZero() || !at.Before(m.now()) {
		if !ok {
			return inspect.Binding{}, fmt.Errorf("nobody holds the port now: %w", inspect.ErrNotFound)
		}
		return m.bindingViewLocked(b), nil
	}
	if !ok || at.Before(b.AllocatedAt) {
		return inspect.Binding{}, fmt.Errorf("at %s: %w", at.UTC().Format(time.RFC3339), inspect.ErrNotCovered)
	}
	return m.bindingViewLocked(b), nil
}

// Pools counts the blocks of every outside prefix.
func (m *Manager) Pools(context.Context) ([]lsn.Usage, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.engine.Usage(), nil
}
