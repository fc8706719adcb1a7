package reconcile

import "context"

// Resume takes over a group at the start, or again after a gap in its feed, and
// sets the position to read on from. A rebuilt database is compared once more:
// sessions that ended in it meanwhile were not written back, and no feed entry
// reports their end.
func (r *Reconciler) Resume(ctx context.Context, g *Group) error {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if err := r.settings.Load(ctx); err != nil {
		return err
	}
	for rebuilt := true; rebuilt; {
		var err error
		if rebuilt, err = r.resync(ctx, g); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stepGroupLocked(g)
	r.absent.missing.Push(g.early...)
	g.early, g.Recent, g.synced, r.reconciled = nil, nil, true, r.now()
	r.feed.TakenUpLocked(g.Name)
	return nil
}

// resync is one comparison of Resume. It reports whether the database was
// suspect and has been rebuilt.
func (r *Reconciler) resync(ctx context.Context, g *Group) (rebuilt bool, err error) {
	if err := r.leases.Check(ctx, g.Name); err != nil {
		return false, err
	}
	l, err := r.lookAt(ctx, g)
	if err != nil {
		return false, err
	}
	if err := r.store.Join(ctx, g.Name, r.node, l.tail); err != nil {
		return false, err
	}
	if err := r.readRecent(ctx, g); err != nil {
		return false, err
	}
	lost, err := r.lostAll(ctx)
	if err != nil {
		return false, err
	}
	suspect := r.checkSuspect(g, l)
	if !r.adopted(g) {
		if err := r.mappings.Load(ctx, g.Name); err != nil {
			return suspect, err
		}
	}
	p := r.newPass(g, Comparison{})
	p.anew, p.alone = true, true
	if err := p.resync(ctx, suspect, lost); err != nil {
		return suspect, err
	}
	r.mu.Lock()
	g.Position = l.tail
	r.mu.Unlock()
	p.end()
	return suspect, r.complete(ctx, g, l, suspect, p.lost)
}

// resync compares everything; a new group in the order of adoption. Ended
// sessions are settled before any gate is changed.
func (p *pass) resync(ctx context.Context, suspect, lost bool) error {
	if p.adopted(p.group) {
		return p.inOrder(ctx, p.records, p.absences, p.settleOrphans, p.gates, p.bindings, p.rows, p.elements)
	}
	return p.inOrder(ctx, newAdoption(p, suspect, lost).looks()...)
}

func (r *Reconciler) adopted(g *Group) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return g.adopted
}

// settleOrphans settles subscribers whose end was found, but not read in the
// feed.
func (p *pass) settleOrphans(ctx context.Context) error {
	return p.absent.settleOrphans(ctx, p.group.Name, p.orphans)
}

// lostAll reports whether the database from which the kernel was programmed is
// lost: the kernel had bindings, in force or in hold, and no group has its
// marker. It is determined once, before a group gets a new marker, because one
// unmarked group among others is a new group.
func (r *Reconciler) lostAll(ctx context.Context) (bool, error) {
	if r.searched {
		return r.databaseLost, nil
	}
	lost := r.kernel.Programmed()
	r.mu.RLock()
	groups := r.groups.AllRLocked()
	r.mu.RUnlock()
	for _, g := range groups {
		_, marked, err := r.store.Marker(ctx, g.Name)
		if err != nil {
			return false, err
		}
		lost = lost && !marked
	}
	r.searched, r.databaseLost = true, lost
	return lost, nil
}
