package session

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/walk"
)

// What a reconcile may take, however many subscribers there are: a share of the time in
// which it works, or has the database work for it. What there is more to look at takes
// longer until it is found.
const (
	presenceShare   = 0.05 // of looking whether records stand, and elements are as they should be
	everythingShare = 0.02 // of comparing everything
)

// runReconcile compares everything now and then, at a bounded rate, and soon when
// somebody asks.
func (m *Manager) runReconcile(ctx context.Context) error {
	pace := newPacer(everythingShare, m.every, nil)
	timer := time.NewTimer(m.every)
	defer timer.Stop()
	for round := 1; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-m.nudge:
		}
		pace.begin(false)
		began := time.Now()
		if _, err := m.reconcileAll(ctx, comparison{audit: round%auditEvery == 0, pace: pace}); err != nil && ctx.Err() == nil {
			m.log.Log(ctx, m.storeSeverity(ctx), "reconcile failed, next try follows", "err", err)
		} else {
			round++ // an audit that failed is due again
			m.observer.Looked(inspect.LookEverything, time.Since(began))
		}
		timer.Reset(m.every)
	}
}

// runPresence looks now and then, and at once when somebody asks, whether a record is
// gone that nobody told of, or the kernel holds something else: this must not take as
// long as a look at everything may.
func (m *Manager) runPresence(ctx context.Context) error {
	pace := newPacer(presenceShare, m.every, m.hurry)
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for strays := false; ; { // others changed the kernel since the last look that succeeded
		hurried, look := false, (*pass).presence
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-m.kernel.Changed():
			strays = true
		case <-m.hurry:
			hurried = true
		}
		if strays {
			look = (*pass).presenceAndStrays
		}
		for again := true; again; hurried = true {
			pace.begin(hurried)
			began := time.Now()
			if looked, err := m.lookAtPresence(ctx, pace, look); err != nil && ctx.Err() == nil {
				m.log.Log(ctx, m.storeSeverity(ctx), "reconcile failed, next try follows", "err", err)
			} else if looked {
				strays = false
				m.observer.Looked(inspect.LookPresence, time.Since(began))
			}
			again = pace.hurried && !hurried // who asked did so while the look was under way
		}
	}
}

// lookAtPresence looks at all groups that follow their feed, and reports whether those
// were all there are.
func (m *Manager) lookAtPresence(ctx context.Context, pace *pacer, look func(*pass, context.Context) error) (all bool, err error) {
	var errs []error
	groups := m.syncedGroups()
	for _, g := range groups {
		_, err := m.reconcile(ctx, g, comparison{pace: pace}, look)
		errs = append(errs, err)
	}
	return len(groups) == len(m.allGroups()), errors.Join(errs...)
}

// reconcileSoon asks for a reconcile without waiting for it.
func (m *Manager) reconcileSoon() {
	signal(m.hurry)
	signal(m.nudge)
}

// reconcileAll compares all groups that follow their feed already. One that
// cannot be compared does not keep the others from it.
func (m *Manager) reconcileAll(ctx context.Context, how comparison) ([]inspect.Drift, error) {
	var drifts []inspect.Drift
	var errs []error
	told := map[netip.Addr]bool{} // of addresses in no group: each group's look shows them
	for _, g := range m.syncedGroups() {
		found, err := m.reconcile(ctx, g, how, (*pass).everything)
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

// reconcile compares one group's records, bindings and kernel elements, as far as part
// looks, and mends what differs unless it is a dry run. A database that is not trusted
// is compared in full, at once, and made whole again.
func (m *Manager) reconcile(ctx context.Context, g *group, how comparison, part func(*pass, context.Context) error) ([]inspect.Drift, error) {
	if m.forgotten(g) {
		return nil, nil
	}
	if !how.dryRun {
		if err := m.owned(ctx, g.Name); err != nil {
			return nil, err
		}
	}
	l, err := m.lookAt(ctx, g)
	if err != nil {
		return nil, err
	}
	if m.checkSuspect(g, l) || !l.marked {
		return m.reconcileDoubtful(ctx, g, how)
	}
	p := m.newPass(g, how)
	err = part(p, ctx)
	if err == nil {
		p.end()
	}
	return p.drifts, err
}

// reconcileDoubtful compares a group whose database is suspect, or new.
func (m *Manager) reconcileDoubtful(ctx context.Context, g *group, how comparison) ([]inspect.Drift, error) {
	m.reconciling.Lock()
	defer m.reconciling.Unlock()
	if m.forgotten(g) {
		return nil, nil
	}
	l, err := m.lookAt(ctx, g)
	if err != nil {
		return nil, err
	}
	suspect := m.checkSuspect(g, l)
	how.pace = nil
	p := m.newPass(g, how)
	p.alone = true
	if err := p.everything(ctx); err != nil || how.dryRun {
		return p.drifts, err
	}
	p.end()
	return p.drifts, m.complete(ctx, g, l, suspect, p.lost)
}

// caughtUpWithin bounds how long a comparison waits for the feed.
const caughtUpWithin = 5 * time.Second

// behind waits for the feed to be taken up to a tail that is behind all that was just
// read: what it tells is no drift, for it touches the addresses that it is about. It
// reports whether the feed was not taken so far in good time.
func (m *Manager) behind(ctx context.Context, g *group, tail string) bool {
	ctx, cancel := context.WithTimeout(ctx, caughtUpWithin)
	defer cancel()
	return !m.caughtUp(ctx, g, tail, true)
}

// forgotten reports whether the group is served no more since it was listed.
func (m *Manager) forgotten(g *group) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.groups[g.Name] != g
}

// removeOrphanElements closes the gates of addresses that no group has: their group was
// taken out before this start, or somebody else put them there.
func (m *Manager) removeOrphanElements(ctx context.Context, inside []netip.Addr) error {
	if len(inside) == 0 {
		return nil
	}
	m.log.Warn("kernel elements of addresses in no configured group, removed", "addresses", len(inside))
	closed := make([]nat.Entry, len(inside))
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
	for _, s := range walk.All(&m.mu, m.life.Slots().All()) {
		if s.Group() == g.Name {
			m.life.Step(s, m.now())
		}
	}
}

// checkSuspect sounds the alarm if the database has lost what is known to exist, and
// reports whether it is suspect.
func (m *Manager) checkSuspect(g *group, l *databaseState) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.suspectLocked(g, l) {
		m.alarmLocked(g)
	}
	return g.suspect
}

// watchTouches remembers, while a comparison runs, the addresses that changed
// under it: for them what it read is out of date.
func (m *Manager) watchTouches(g *group, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life.Groups().WatchTouches(g.Group, on)
}
