package session

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/drift"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// runReconcile compares everything now and then, and when somebody asks.
func (m *Manager) runReconcile(ctx context.Context) error {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-m.nudge:
		}
		look := comparison{audit: round%auditEvery == 0}
		if _, err := m.reconcileAll(ctx, look); err != nil && ctx.Err() == nil {
			m.log.Log(ctx, m.storeSeverity(ctx), "reconcile failed, next try follows", "err", err)
		}
	}
}

// reconcileSoon asks for a reconcile without waiting for it.
func (m *Manager) reconcileSoon() {
	select {
	case m.nudge <- struct{}{}:
	default:
	}
}

// comparison says how a reconcile is done.
type comparison struct {
	dryRun bool // mend nothing
	audit  bool // walk the conntrack table too
}

// reconcileAll compares all groups that follow their feed already. One that
// cannot be compared does not keep the others from it.
func (m *Manager) reconcileAll(ctx context.Context, how comparison) ([]inspect.Drift, error) {
	var drifts []inspect.Drift
	var errs []error
	told := map[netip.Addr]bool{} // of addresses in no group: each group's look shows them
	for _, g := range m.syncedGroups() {
		found, err := m.reconcile(ctx, g, how)
		errs = append(errs, err)
		for _, d := range found {
			if d.Group == "" {
				if told[d.Inside] {
					continue
				}
				told[d.Inside] = true
			}
			drifts = append(drifts, d)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return drifts, err
	}
	if !how.dryRun {
		m.mu.Lock()
		m.reconciled, m.drifts = m.now(), len(drifts)
		m.mu.Unlock()
	}
	return drifts, nil
}

func (m *Manager) allGroups() []*group {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Values(m.groups))
}

func (m *Manager) syncedGroups() []*group {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var groups []*group
	for _, g := range m.groups {
		if g.synced {
			groups = append(groups, g)
		}
	}
	return groups
}

// reconcile compares one group's records, bindings and kernel elements, and
// mends what differs unless it is a dry run.
func (m *Manager) reconcile(ctx context.Context, g *group, how comparison) ([]inspect.Drift, error) {
	m.reconciling.Lock()
	defer m.reconciling.Unlock()
	if m.forgotten(g) {
		return nil, nil
	}
	if !how.dryRun {
		if err := m.owned(ctx, g.name); err != nil {
			return nil, err
		}
	}
	m.watchTouches(g, true)
	defer m.watchTouches(g, false)
	o, err := m.observe(ctx, g)
	if err != nil {
		return nil, err
	}
	if o.behind, err = m.behind(ctx, g); err != nil {
		return nil, err
	}
	if !how.dryRun {
		if err := m.removeNobodys(ctx, o.nobodys); err != nil {
			return nil, err
		}
	}
	drifts, err := m.settleDrifts(ctx, g, o, how)
	return append(m.nobodysDrifts(o.nobodys, how), drifts...), err
}

// caughtUpWithin bounds how long a comparison waits for the feed.
const caughtUpWithin = 5 * time.Second

// behind waits for the feed to be taken as far as it goes now, which is behind all
// that was just observed: what it tells is no drift, for it touches the addresses
// that it is about. It reports whether the feed was not taken so far in good time.
func (m *Manager) behind(ctx context.Context, g *group) (bool, error) {
	tail, err := m.store.Tail(ctx, g.name)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, caughtUpWithin)
	defer cancel()
	return !m.caughtUp(ctx, g, tail, true), nil
}

// forgotten reports whether the group is served no more since it was listed.
func (m *Manager) forgotten(g *group) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.groups[g.name] != g
}

// nobodysDrifts tells of kernel elements of addresses in no group.
func (m *Manager) nobodysDrifts(inside []netip.Addr, how comparison) []inspect.Drift {
	drifts := make([]inspect.Drift, len(inside))
	for i, a := range inside {
		drifts[i] = inspect.Drift{
			Kind: inspect.DriftElementOrphaned, Inside: a, What: "kernel elements of an address in no group; removed", Mended: !how.dryRun,
		}
		if !how.dryRun {
			m.observer.Drift(string(inspect.DriftElementOrphaned))
		}
	}
	return drifts
}

// sync takes over a group at the start, or again after a gap in its feed, and
// sets where to go on reading. A database that had to be rebuilt is looked at once
// more: sessions that ended in it meanwhile were not written back, and no feed
// tells of them.
func (m *Manager) sync(ctx context.Context, g *group) error {
	if err := m.probe(ctx); err != nil {
		return err // whatever could be read of it, nothing could be mended
	}
	m.reconciling.Lock()
	defer m.reconciling.Unlock()
	m.watchTouches(g, true)
	defer m.watchTouches(g, false)
	if err := m.loadSettings(ctx); err != nil {
		return err
	}
	for rebuilt := true; rebuilt; {
		var err error
		if rebuilt, err = m.takeUp(ctx, g); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stepGroupLocked(g)
	m.missing.push(g.early...)
	g.early, g.recent = nil, nil
	g.synced, g.followed, m.reconciled = true, true, m.now()
	m.settleLocked()
	return nil
}

// takeUp is one look of sync. It reports whether the database was suspect and
// has been rebuilt.
func (m *Manager) takeUp(ctx context.Context, g *group) (rebuilt bool, err error) {
	if err := m.owned(ctx, g.name); err != nil {
		return false, err
	}
	o, err := m.observe(ctx, g)
	if err != nil {
		return false, err
	}
	o.anew = true
	if err := m.store.Join(ctx, g.name, m.node, o.tail); err != nil {
		return false, err
	}
	if err := m.readRecent(ctx, g, o); err != nil {
		return false, err
	}
	if o.lost, err = m.lostAll(ctx); err != nil {
		return false, err
	}
	m.mu.Lock()
	if m.suspectLocked(g, o) {
		m.alarmLocked(g)
	}
	rebuilt = g.suspect
	if !g.adopted {
		m.adoptLocked(g, o, g.suspect)
	}
	if err := m.retireLocked(g); err != nil {
		m.mu.Unlock()
		return rebuilt, err
	}
	clear(g.touched)
	g.position = o.tail
	m.mu.Unlock()
	if err := m.removeNobodys(ctx, o.nobodys); err != nil {
		return rebuilt, err
	}
	_, err = m.settleDrifts(ctx, g, o, comparison{})
	return rebuilt, err
}

// lostAll reports whether the kernel was programmed from a database that was not
// there any more at the start: it had bindings, in force or in hold, and this one
// knows none. Asked once, before a group gets a new marker: one group without its
// marker among others is a new group.
func (m *Manager) lostAll(ctx context.Context) (bool, error) {
	if m.searched {
		return m.lost, nil
	}
	lost := m.kernel.Programmed()
	for _, g := range m.allGroups() {
		_, marked, err := m.store.Marker(ctx, g.name)
		if err != nil {
			return false, err
		}
		lost = lost && !marked
	}
	m.searched, m.lost = true, lost
	return lost, nil
}

// removeNobodys closes the gates of addresses that no group has: their group was
// taken out before this start, or somebody else put them there.
func (m *Manager) removeNobodys(ctx context.Context, inside []netip.Addr) error {
	if len(inside) == 0 {
		return nil
	}
	m.log.Warn("kernel elements of addresses in no configured group, removed", "addresses", len(inside))
	closed := make([]nftnat.Entry, len(inside))
	for i, a := range inside {
		closed[i].Inside = a
	}
	if err := m.kernel.Apply(ctx, closed); err != nil {
		return err
	}
	_, err := m.kernel.Reap(ctx, inside)
	return err
}

// stepGroupLocked gives every slot of the group its next step.
func (m *Manager) stepGroupLocked(g *group) {
	for _, s := range walk(&m.mu, m.slots.all()) {
		if s.group() == g.name {
			m.stepLocked(s)
		}
	}
}

// settleDrifts finds and mends what differs, and makes a database that lost
// data whole again.
func (m *Manager) settleDrifts(ctx context.Context, g *group, o *observation, how comparison) ([]inspect.Drift, error) {
	m.beSuspicious(g, o)
	views := m.views(g, o)
	audit := m.auditOf(ctx, g, &views, how.audit)
	operations := drift.Diff(&views)
	n := 0
	for n < len(operations) && operations[n].AboutRecord() {
		n++
	}
	r := repair{dryRun: how.dryRun, group: g, observed: o}
	m.mend(&r, operations[:n])
	if err := m.settleOrphans(ctx, g.name, r.orphans); err != nil {
		return r.drifts, err
	}
	m.mend(&r, operations[n:])
	if how.dryRun {
		return r.drifts, audit.err
	}
	m.mu.Lock()
	suspect := g.suspect
	g.gone = r.gone
	m.mu.Unlock()
	if err := m.rebuild(ctx, g, o, suspect, r.lost); err != nil {
		return r.drifts, err
	}
	return r.drifts, errors.Join(audit.err, m.killAll(ctx, r.misplaced))
}

// beSuspicious sounds the alarm if the database has lost what is known to exist.
func (m *Manager) beSuspicious(g *group, o *observation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.suspectLocked(g, o) {
		m.alarmLocked(g)
	}
}

// serverOfLocked returns the group that an address is served in, which need not
// be the one that its prefix is in since the last reload.
func (m *Manager) serverOfLocked(inside netip.Addr) *group {
	if s := m.slots.at(inside); s != nil {
		return m.groups[s.group()]
	}
	return m.groupOfLocked(inside)
}

// watchTouches remembers, while a comparison runs, the addresses that changed
// under it: for them the observation is out of date.
func (m *Manager) watchTouches(g *group, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g.touched != nil {
		m.comparing--
	}
	g.touched = nil
	if on {
		g.touched = map[netip.Addr]struct{}{}
		m.comparing++
	}
}
