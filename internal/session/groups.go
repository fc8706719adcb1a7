package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// SetGroups takes a changed configuration without touching a session: new
// groups and prefixes are served, those taken out keep what they have and give
// no more. It refuses to move an inside address that is in use to another
// group: its record and its block would stay behind.
func (m *Manager) SetGroups(ctx context.Context, configs []lsn.GroupConfig) error {
	m.awaitAdopted(ctx)
	m.regrouping.Lock()
	defer m.regrouping.Unlock()
	if err := m.mayRegroup(); err != nil {
		return err
	}
	plans, taken, err := m.planNew(ctx, configs)
	if err == nil {
		err = m.regroup(ctx, configs, plans)
	}
	if err != nil {
		return errors.Join(err, m.leaveAll(ctx, taken))
	}
	return nil
}

// adoptWithin bounds how long a reload waits for groups that an earlier one added.
const adoptWithin = 5 * time.Second

// awaitAdopted waits, for a bounded time, until a reload may change what is served.
func (m *Manager) awaitAdopted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, adoptWithin)
	defer cancel()
	for m.mayRegroup() != nil && clock.Sleep(ctx, 10*time.Millisecond) == nil {
	}
}

// mayRegroup: what is served can change once all bindings are known, and while it
// is ours.
func (m *Manager) mayRegroup() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.deposed != nil {
		return m.deposed
	}
	known := m.prepared
	for _, g := range m.groups {
		known = known && g.adopted
	}
	if !known {
		return errors.New("the bindings of all groups are not known yet, reload again when sessiond is ready")
	}
	return nil
}

// planNew takes the leases of groups that are not served yet, as a start does, and
// plans them. It also returns the groups whose leases were taken.
func (m *Manager) planNew(ctx context.Context, configs []lsn.GroupConfig) (plans []plan, taken []string, err error) {
	m.mu.RLock()
	var fresh []lsn.GroupConfig
	for _, c := range configs {
		if m.groups[c.Name] == nil {
			fresh = append(fresh, c)
		}
	}
	m.mu.RUnlock()
	for _, c := range fresh {
		if err := m.owner.Take(ctx, c.Name); err != nil {
			return nil, taken, err
		}
		taken = append(taken, c.Name)
		stored, err := m.store.Served(ctx, []string{c.Name})
		if err != nil {
			return nil, taken, err
		}
		p, err := m.planConfigured(ctx, c, configs, servedAs(stored, c.Name))
		if err != nil {
			return nil, taken, err
		}
		plans = append(plans, p)
	}
	return plans, taken, nil
}

// servedAs returns what a group is served as, nil if that is not known.
func servedAs(stored []subscriberdb.Served, group string) *subscriberdb.Served {
	for i := range stored {
		if stored[i].Group == group {
			return &stored[i]
		}
	}
	return nil
}

func (m *Manager) leaveAll(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, m.owner.Leave(ctx, name))
	}
	return errors.Join(errs...)
}

// regroup changes engine and kernel, and has new groups followed.
func (m *Manager) regroup(ctx context.Context, configs []lsn.GroupConfig, plans []plan) error {
	m.mu.Lock()
	before := m.configs
	if err := m.staysLocked(configs); err != nil {
		m.mu.Unlock()
		return err
	}
	full := withDrains(configs, plans)
	if err := m.engine.Reconfigure(full); err != nil {
		m.mu.Unlock()
		return err
	}
	inside, outside := m.prefixesLocked(full)
	m.mu.Unlock()
	err := m.kernel.SetPrefixes(ctx, inside, outside)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		return errors.Join(err, m.engine.Reconfigure(before))
	}
	m.configs, m.inside, m.outside = configs, inside, outside
	for _, g := range m.groups {
		g.stored = nil // what the store adds to it may have changed too
	}
	defer signal(m.timers) // a grown pool serves who waits
	for _, c := range configs {
		if g := m.groups[c.Name]; g != nil {
			g.Config = c
			continue
		}
		m.addGroupLocked(c, m.guards[c.Name])
	}
	m.serveLocked(configs)
	for i := range plans {
		m.serveLocallyLocked(&plans[i])
		m.followLocked(m.groups[plans[i].config.Name])
	}
	return nil
}

// Groups returns the configuration in force.
func (m *Manager) Groups() []lsn.GroupConfig {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.configs
}

// withDrains returns the configuration with what drains of its new groups.
func withDrains(configs []lsn.GroupConfig, plans []plan) []lsn.GroupConfig {
	full := slices.Clone(configs)
	for i := range full {
		for j := range plans {
			if plans[j].config.Name == full[i].Name {
				full[i] = plans[j].config
			}
		}
	}
	return full
}

// staysLocked checks that no address in use would go to another group.
func (m *Manager) staysLocked(configs []lsn.GroupConfig) error {
	for inside, s := range m.life.Slots().All() {
		for _, c := range configs {
			if c.Name != s.Group() && coveredBy(c.Inside, netip.PrefixFrom(inside, 32)) {
				return fmt.Errorf("group %s: inside address %s is in use in group %s, end its session first: %w",
					c.Name, inside, s.Group(), lsn.ErrInUse)
			}
		}
	}
	return nil
}

// serveLocked says which group an inside address is looked for in. Prefixes that
// were taken out stay with their group, so that the sessions there can end, unless
// a group has them now.
func (m *Manager) serveLocked(configs []lsn.GroupConfig) {
	for _, g := range m.groups {
		g.Inside = slices.DeleteFunc(g.Inside, func(p netip.Prefix) bool {
			return slices.ContainsFunc(configs, func(c lsn.GroupConfig) bool { return coveredBy(c.Inside, p) })
		})
	}
	for _, c := range configs {
		g := m.groups[c.Name]
		g.Inside = append(g.Inside, c.Inside...)
	}
}

// Inside returns the inside prefixes of every group that is served, those taken
// out of the configuration included.
func (m *Manager) Inside() map[string][]netip.Prefix {
	m.mu.RLock()
	defer m.mu.RUnlock()
	prefixes := make(map[string][]netip.Prefix, len(m.groups))
	for name, g := range m.groups {
		prefixes[name] = slices.Clone(g.Inside)
	}
	return prefixes
}

// prefixesLocked returns the prefixes of the new groups and of those in force:
// what stands in a pool that was taken out goes on until it ends, so the kernel
// keeps all of them until the next start.
func (m *Manager) prefixesLocked(configs []lsn.GroupConfig) (inside, outside []netip.Prefix) {
	inside, outside = slices.Clone(m.inside), slices.Clone(m.outside)
	for _, g := range m.groups {
		configs = append(slices.Clip(configs), g.Config)
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
