package session

import "context"

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
	if err := m.loadSettings(ctx); err != nil {
		return err
	}
	for rebuilt := true; rebuilt; {
		var err error
		if rebuilt, err = m.resync(ctx, g); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stepGroupLocked(g)
	m.missing.push(g.early...)
	g.early, g.Recent = nil, nil
	g.synced, g.followed, m.reconciled = true, true, m.now()
	m.settleLocked()
	return nil
}

// resync is one look of sync. It reports whether the database was suspect and
// has been rebuilt.
func (m *Manager) resync(ctx context.Context, g *group) (rebuilt bool, err error) {
	if err := m.owned(ctx, g.Name); err != nil {
		return false, err
	}
	l, err := m.lookAt(ctx, g)
	if err != nil {
		return false, err
	}
	if err := m.store.Join(ctx, g.Name, m.node, l.tail); err != nil {
		return false, err
	}
	if err := m.readRecent(ctx, g); err != nil {
		return false, err
	}
	lost, err := m.lostAll(ctx)
	if err != nil {
		return false, err
	}
	suspect := m.checkSuspect(g, l)
	p := m.newPass(g, comparison{})
	p.anew, p.alone = true, true
	if err := p.resync(ctx, suspect, lost); err != nil {
		return suspect, err
	}
	m.mu.Lock()
	g.position = l.tail
	m.mu.Unlock()
	p.end()
	return suspect, m.complete(ctx, g, l, suspect, p.lost)
}

// resync compares everything, of a group that is new in the order in which it can be
// adopted. Who is gone is settled before any gate is touched.
func (p *pass) resync(ctx context.Context, suspect, lost bool) error {
	if p.m.adopted(p.group) {
		return p.inOrder(ctx, p.records, p.absences, p.settleOrphans, p.gates, p.bindings, p.rows, p.elements)
	}
	return p.inOrder(ctx, newAdoption(p, suspect, lost).looks()...)
}

func (m *Manager) adopted(g *group) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return g.adopted
}

// settleOrphans settles who is gone: those whose end was found, and not read.
func (p *pass) settleOrphans(ctx context.Context) error {
	return p.m.settleOrphans(ctx, p.group.Name, p.orphans)
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
		_, marked, err := m.store.Marker(ctx, g.Name)
		if err != nil {
			return false, err
		}
		lost = lost && !marked
	}
	m.searched, m.lost = true, lost
	return lost, nil
}
