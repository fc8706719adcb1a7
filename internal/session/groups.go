package session

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/lsn"
)

// SetGroups takes a changed configuration without touching a session: new
// groups and prefixes are served, those taken out keep what they have and give
// no more.
func (m *Manager) SetGroups(ctx context.Context, configs []lsn.GroupConfig) error {
	m.mu.Lock()
	if err := m.engine.Reconfigure(configs); err != nil {
		m.mu.Unlock()
		return err
	}
	inside, outside := m.prefixesLocked(configs)
	m.mu.Unlock()
	if err := m.kernel.SetPrefixes(ctx, inside, outside); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.timers.wakeUp() // a grown pool serves who waits
	for _, c := range configs {
		if g := m.groups[c.Name]; g != nil {
			g.config = c
			continue
		}
		g := newGroup(c)
		m.groups[c.Name] = g
		if m.tasks != nil {
			m.followLocked(g)
		}
	}
	return nil
}

// prefixesLocked returns the prefixes of the new groups and of those in force:
// what stands in a pool that was taken out goes on until it ends, so the kernel
// keeps all of them until the next start.
func (m *Manager) prefixesLocked(configs []lsn.GroupConfig) (inside, outside []netip.Prefix) {
	for _, g := range m.groups {
		configs = append(slices.Clip(configs), g.config)
	}
	for _, c := range configs {
		m.inside = merge(m.inside, c.Inside)
		m.outside = merge(m.outside, c.Outside)
	}
	return slices.Clone(m.inside), slices.Clone(m.outside)
}

// merge adds prefixes to a list of which none covers another.
func merge(list, more []netip.Prefix) []netip.Prefix {
	for _, p := range more {
		if slices.ContainsFunc(list, func(q netip.Prefix) bool { return covers(q, p) }) {
			continue
		}
		list = append(slices.DeleteFunc(list, func(q netip.Prefix) bool { return covers(p, q) }), p)
	}
	return list
}

func covers(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }
