package session

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

const (
	// serveEvery is how often what is served is compared with what stands of it in
	// the database.
	serveEvery = time.Second
	// fullyEvery is how many such looks pass until drained inside prefixes are looked
	// at, for which all slots are walked over, and the key is written in any case.
	fullyEvery = 10
)

// runServed keeps in the database what is served and what drains, and forgets
// drains that are over.
func (m *Manager) runServed(ctx context.Context) error {
	tick := time.NewTicker(serveEvery)
	defer tick.Stop()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for _, g := range m.syncedGroups() {
			if err := m.keepServed(ctx, g, round%fullyEvery == 0); err != nil && ctx.Err() == nil {
				m.log.Debug("what is served is not in the database yet", "group", g.Name, "err", err)
			}
		}
	}
}

// keepServed writes what a group is served as if that changed, and with a full look
// also if it did not: somebody may have lost it. A group that is not configured and has
// no binding left is forgotten.
func (m *Manager) keepServed(ctx context.Context, g *group, fully bool) error {
	m.regrouping.Lock()
	defer m.regrouping.Unlock()
	if fully {
		m.lookAtDrainedInside(g)
	}
	m.mu.RLock()
	now, over := m.servedRLocked(g)
	stands := !fully && g.stored != nil && reflect.DeepEqual(*g.stored, now)
	m.mu.RUnlock()
	switch {
	case over:
		return m.forgetGroup(ctx, g)
	case stands:
		return nil
	}
	if err := m.owned(ctx, g.Name); err != nil {
		return err
	}
	if err := m.store.SaveServed(ctx, now); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	g.stored = &now
	return nil
}

// servedRLocked returns what a group is served as, and whether that is nothing any
// more.
func (m *Manager) servedRLocked(g *group) (s subscriberdb.Served, over bool) {
	c, configured := m.configuredRLocked(g.Name)
	if !configured {
		c = g.Config
		c.Inside, c.Outside = nil, nil
	}
	var outside []netip.Prefix
	if full, ok := m.unadopted[g.Name]; ok {
		outside = lessThan(full.Outside, c.Outside)
	} else {
		for _, u := range m.engine.Usage() {
			if u.Group == g.Name && u.Draining {
				outside = append(outside, u.Outside)
			}
		}
	}
	inside := lessThan(g.Inside, c.Inside)
	return subscriberdb.Served{
		Group: g.Name, By: m.by,
		Inside: slices.Concat(c.Inside, inside), Outside: slices.Concat(c.Outside, outside),
		Draining:  slices.Concat(inside, outside),
		FirstPort: uint16(c.FirstPort), LastPort: uint16(c.LastPort), BlockSize: c.BlockSize,
		Hold: c.Hold, Grace: c.Grace, GraceCauses: c.GraceCauses,
	}, !configured && len(outside) == 0
}

func (m *Manager) configuredRLocked(name string) (lsn.GroupConfig, bool) {
	if i := slices.IndexFunc(m.configs, func(c lsn.GroupConfig) bool { return c.Name == name }); i >= 0 {
		return m.configs[i], true
	}
	return lsn.GroupConfig{}, false
}

// lessThan returns the parts of prefixes that the configured ones do not have.
func lessThan(prefixes, configured []netip.Prefix) []netip.Prefix {
	var rest []netip.Prefix
	for _, p := range prefixes {
		rest = append(rest, lsn.Subtract(p, configured)...)
	}
	return rest
}

// lookAtDrainedInside forgets those drained inside prefixes of a configured group
// that nobody is online or has a binding in. The addresses stay with the group in
// the store and the kernel until the next start.
func (m *Manager) lookAtDrainedInside(g *group) {
	m.mu.RLock()
	c, configured := m.configuredRLocked(g.Name)
	drained := lessThan(g.Inside, c.Inside)
	used := make([]bool, len(drained))
	if configured && len(drained) > 0 {
		for inside, s := range walk.All(m.mu.RLocker(), m.life.Slots().All()) {
			if i := holding(drained, inside); i >= 0 && s.Group() == g.Name {
				used[i] = true
			}
		}
	}
	m.mu.RUnlock()
	if !configured || !slices.Contains(used, false) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	g.Inside = slices.Clone(c.Inside)
	for i, p := range drained {
		if used[i] {
			g.Inside = append(g.Inside, p)
		}
	}
}

// holding returns which of the prefixes has the address, or -1.
func holding(prefixes []netip.Prefix, a netip.Addr) int {
	return slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// forgetGroup ends the service of a group that is not configured and has no binding
// left: first in the database, so that no start serves it, and then here. Another
// node may have it from then on. Who is still online in it has no NAT, and gets none.
func (m *Manager) forgetGroup(ctx context.Context, g *group) error {
	m.reconciling.Lock()
	defer m.reconciling.Unlock()
	m.mu.RLock()
	rests := m.restsRLocked(g)
	m.mu.RUnlock()
	if !rests {
		return nil
	}
	if err := m.store.ForgetServed(ctx, g.Name); err != nil {
		return err
	}
	m.mu.Lock()
	m.life.ForgetGroup(g.Name)
	delete(m.groups, g.Name)
	g.cancel()
	m.mu.Unlock()
	m.log.Info("a drained group is empty and forgotten", "group", g.Name)
	if err := m.store.Unserve(g.Name); err != nil {
		return err
	}
	return m.owner.Leave(ctx, g.Name)
}

// restsRLocked reports whether nothing is under way in a group without bindings.
func (m *Manager) restsRLocked(g *group) bool {
	for _, s := range m.life.Slots().All() {
		if s.Group() == g.Name && (s.Busy() || s.Phase() != lifecycle.Idle) {
			return false
		}
	}
	return !m.life.Writes().In(func(outside netip.Addr) bool { return contains(g.Config.Outside, outside) })
}
