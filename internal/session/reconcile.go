package session

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// observation is one look at a group from outside the engine: what the database
// and the kernel hold.
type observation struct {
	marker  subscriberdb.Marker
	marked  bool   // the database has its epoch marker
	since   string // where the engine stood in the feed before anything was read
	tail    string // end of the feed before the records were read
	records map[netip.Addr]subscriber.Record
	stored  map[lsn.Block]subscriberdb.Binding
	kernel  map[netip.Addr]nftnat.Entry
	nobodys []netip.Addr // kernel elements of addresses in no group
	lost    bool         // the kernel was programmed before, and no group has its marker
	anew    bool         // the feed is taken up anew behind this look: what it said before may not have been heard
}

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
			m.log.Warn("reconcile failed, next try follows", "err", err)
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
	for _, g := range m.syncedGroups() {
		found, err := m.reconcile(ctx, g, how)
		errs = append(errs, err)
		drifts = append(drifts, found...)
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
	m.watchTouches(g, true)
	defer m.watchTouches(g, false)
	o, err := m.observe(ctx, g)
	if err != nil {
		return nil, err
	}
	if !how.dryRun {
		if err := m.removeNobodys(ctx, o.nobodys); err != nil {
			return nil, err
		}
	}
	drifts, err := m.settleDrifts(ctx, g, o, how.dryRun)
	if err != nil || !how.audit {
		return drifts, err
	}
	misplaced, err := m.audit(ctx, g, how.dryRun)
	return append(drifts, misplaced...), err
}

// sync takes over a group at the start, or again after a gap in its feed, and
// sets where to go on reading. A database that had to be rebuilt is looked at once
// more: sessions that ended in it meanwhile were not written back, and no feed
// tells of them.
func (m *Manager) sync(ctx context.Context, g *group) error {
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
	g.synced, m.reconciled = true, m.now()
	m.redisErr = nil // it has just answered: who sees Ready must not be told otherwise
	m.settleLocked()
	return nil
}

// takeUp is one look of sync. It reports whether the database was suspect and
// has been rebuilt.
func (m *Manager) takeUp(ctx context.Context, g *group) (rebuilt bool, err error) {
	o, err := m.observe(ctx, g)
	if err != nil {
		return false, err
	}
	o.anew = true
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
	clear(g.touched)
	g.position = o.tail
	m.mu.Unlock()
	if err := m.removeNobodys(ctx, o.nobodys); err != nil {
		return rebuilt, err
	}
	_, err = m.settleDrifts(ctx, g, o, false)
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
	for _, s := range walk(&m.mu, m.slots) {
		if s.record.Group == g.name {
			m.stepLocked(s)
		}
	}
}

// settleDrifts finds and mends what differs, and makes a database that lost
// data whole again.
func (m *Manager) settleDrifts(ctx context.Context, g *group, o *observation, dryRun bool) ([]inspect.Drift, error) {
	m.mu.Lock()
	if m.suspectLocked(g, o) {
		m.alarmLocked(g)
	}
	var drifts []inspect.Drift
	var lost []subscriber.Record
	m.compareLocked(g, o, func(d drift) {
		if !dryRun {
			m.observer.Drift(string(d.Kind))
			lost = append(lost, m.mendLocked(g, o, d)...)
			d.Mended = true
		}
		drifts = append(drifts, d.Drift)
	})
	suspect := g.suspect
	m.mu.Unlock()
	if dryRun {
		return drifts, nil
	}
	return drifts, m.rebuild(ctx, g, o, suspect, lost)
}

// observe reads what the database and the kernel hold of a group.
func (m *Manager) observe(ctx context.Context, g *group) (*observation, error) {
	o := &observation{
		since:   m.positionOf(g),
		records: map[netip.Addr]subscriber.Record{},
		stored:  map[lsn.Block]subscriberdb.Binding{},
		kernel:  map[netip.Addr]nftnat.Entry{},
	}
	var err error
	if o.marker, o.marked, err = m.store.Marker(ctx, g.name); err != nil {
		return nil, err
	}
	if o.tail, err = m.store.Tail(ctx, g.name); err != nil {
		return nil, err
	}
	errRecords := m.store.Records(ctx, g.name, func(rs []subscriber.Record) error {
		for _, r := range rs {
			o.records[r.Inside] = r
		}
		return nil
	})
	errBindings := m.store.Bindings(ctx, g.name, func(bs []subscriberdb.Binding) error {
		for _, b := range bs {
			o.stored[rowBlock(b)] = b
		}
		return nil
	})
	if err := errors.Join(errRecords, errBindings); err != nil {
		return nil, err
	}
	return o, m.observeKernel(ctx, g, o)
}

func (m *Manager) observeKernel(ctx context.Context, g *group, o *observation) error {
	entries, err := m.kernel.Entries(ctx)
	if err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, e := range entries {
		switch m.serverOfLocked(e.Inside) {
		case g:
			o.kernel[e.Inside] = e
		case nil:
			o.nobodys = append(o.nobodys, e.Inside)
		}
	}
	return nil
}

// serverOfLocked returns the group that an address is served in, which need not
// be the one that its prefix is in since the last reload.
func (m *Manager) serverOfLocked(inside netip.Addr) *group {
	if s := m.slots[inside]; s != nil {
		return m.groups[s.record.Group]
	}
	return m.groupOfLocked(inside)
}

// watchTouches remembers, while a comparison runs, the addresses that changed
// under it: for them the observation is out of date.
func (m *Manager) watchTouches(g *group, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.touched = nil
	if on {
		g.touched = map[netip.Addr]struct{}{}
	}
}
