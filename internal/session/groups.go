package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/lsn"
)

// SetGroups takes a changed configuration without touching a session: new
// groups and prefixes are served, those taken out keep what they have and give
// no more. It refuses to move an inside address that is in use to another
// group: its record and its block would stay behind.
func (m *Manager) SetGroups(ctx context.Context, configs []lsn.GroupConfig) error {
	m.mu.Lock()
	before := m.configs
	if err := m.staysLocked(configs); err != nil {
		m.mu.Unlock()
		return err
	}
	if err := m.engine.Reconfigure(configs); err != nil {
		m.mu.Unlock()
		return err
	}
	inside, outside := m.prefixesLocked(configs)
	m.mu.Unlock()
	err := m.kernel.SetPrefixes(ctx, inside, outside)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		return errors.Join(err, m.engine.Reconfigure(before))
	}
	m.configs, m.inside, m.outside = configs, inside, outside
	defer m.timers.wakeUp() // a grown pool serves who waits
	for _, c := range configs {
		if g := m.groups[c.Name]; g != nil {
			g.config = c
			continue
		}
		g := newGroup(c, m.guards[c.Name])
		m.groups[c.Name] = g
		if m.tasks != nil {
			m.followLocked(g)
		}
	}
	m.serveLocked(configs)
	return nil
}

// Groups returns the configuration in force.
func (m *Manager) Groups() []lsn.GroupConfig {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.configs
}

// staysLocked checks that no address in use would go to another group.
func (m *Manager) staysLocked(configs []lsn.GroupConfig) error {
	for inside, s := range m.slots.all() {
		for _, c := range configs {
			if c.Name != s.group() && coveredBy(c.Inside, netip.PrefixFrom(inside, 32)) {
				return fmt.Errorf("group %s: inside address %s is in use in group %s, end its session first: %w",
					c.Name, inside, s.group(), lsn.ErrInUse)
			}
		}
	}
	return nil
}

// serveLocked says which group an inside address is looked for in. Prefixes that
// were taken out stay with their group until the next start, so that the
// sessions there can end, unless a group has them now.
func (m *Manager) serveLocked(configs []lsn.GroupConfig) {
	for _, g := range m.groups {
		g.inside = slices.DeleteFunc(g.inside, func(p netip.Prefix) bool {
			return slices.ContainsFunc(configs, func(c lsn.GroupConfig) bool { return coveredBy(c.Inside, p) })
		})
	}
	for _, c := range configs {
		g := m.groups[c.Name]
		g.inside = append(g.inside, c.Inside...)
	}
}

// Inside returns the inside prefixes of every group that is served, those taken
// out of the configuration included.
func (m *Manager) Inside() map[string][]netip.Prefix {
	m.mu.RLock()
	defer m.mu.RUnlock()
	prefixes := make(map[string][]netip.Prefix, len(m.groups))
	for name, g := range m.groups {
		prefixes[name] = slices.Clone(g.inside)
	}
	return prefixes
}

// prefixesLocked returns the prefixes of the new groups and of those in force:
// what stands in a pool that was taken out goes on until it ends, so the kernel
// keeps all of them until the next start.
func (m *Manager) prefixesLocked(configs []lsn.GroupConfig) (inside, outside []netip.Prefix) {
	inside, outside = slices.Clone(m.inside), slices.Clone(m.outside)
	for _, g := range m.groups {
		configs = append(slices.Clip(configs), g.config)
	}
	for _, c := range configs {
		inside = merge(inside, c.Inside)
		outside = merge(outside, c.Outside)
	}
	return inside, outside
}

// merge adds prefixes to a list of which none covers another.
func merge(list, more []netip.Prefix) []netip.Prefix {
	for _, p := range more {
		if coveredBy(list, p) {
			continue
		}
		list = append(slices.DeleteFunc(list, func(q netip.Prefix) bool { return covers(p, q) }), p)
	}
	return list
}

func covers(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }

func coveredBy(list []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(list, func(q netip.Prefix) bool { return covers(q, p) })
}
