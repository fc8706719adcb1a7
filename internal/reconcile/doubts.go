package reconcile

import (
	"context"
	"net/netip"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/reconcile/drift"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// doubts are addresses and blocks that may differ.
type doubts struct {
	inside  []netip.Addr
	places  []nat.Place         // places of blocks
	records []subscriber.Record // the records at the addresses, if known
	known   bool                // records is complete
	online  bool                // only the online state is in doubt
}

func (d *doubts) none() bool { return len(d.inside)+len(d.places) == 0 }

// compareAndRest compares the doubts of a stretch, and pauses if due.
func (p *pass) compareAndRest(ctx context.Context, d *doubts) error {
	if err := p.compare(ctx, d); err != nil {
		return err
	}
	return p.how.pace.rest(ctx)
}

// compare reads database and kernel again for the doubts, compares them with
// the engine, and repairs differences.
func (p *pass) compare(ctx context.Context, d *doubts) error {
	if d.none() {
		return nil
	}
	g := p.group
	if !p.alone {
		p.reconciling.Lock()
		defer p.reconciling.Unlock()
	}
	if p.forgotten(g) {
		return nil
	}
	if !p.how.DryRun {
		if err := p.leases.Check(ctx, g.Name); err != nil {
			return err
		}
	}
	p.watchTouches(g, true)
	defer p.watchTouches(g, false)
	v, err := p.views(ctx, d)
	if err != nil {
		return err
	}
	taken, _ := p.trustOf(g) // before the tail, which advances
	tail, err := p.store.Tail(ctx, g.Name)
	if err != nil {
		return err
	}
	if !p.alone {
		if trusted, err := p.trusted(ctx, taken, tail); err != nil || !trusted {
			return err
		}
	}
	r := repair{Reconciler: p.Reconciler, dryRun: p.how.DryRun, group: g, anew: p.anew, gone: p.gone, behind: p.behind(ctx, g, tail)}
	p.showSlots(&v, d)
	return p.mend(ctx, &r, drift.Diff(&v))
}

// trusted reports whether the group's database is still the same as at the
// beginning of the pass, which may be long ago. Its feed was taken up to an
// entry, and now ends with the tail. If not, it requests a comparison.
func (p *pass) trusted(ctx context.Context, taken, tail string) (bool, error) {
	marker, ok, err := p.store.Marker(ctx, p.group.Name)
	if err != nil {
		return false, err
	}
	p.mu.RLock()
	ok = ok && marker.Epoch == p.group.epoch && subscriber.CompareVersions(tail, taken) >= 0
	p.mu.RUnlock()
	if !ok {
		p.Soon()
	}
	return ok, nil
}

// views reads the database's part of the doubts.
func (p *pass) views(ctx context.Context, d *doubts) (drift.Views, error) {
	v := drift.Views{
		Database: drift.Database{
			Records: make(map[netip.Addr]subscriber.Packed, len(d.inside)), Bindings: make(map[nat.Place]nat.Binding, len(d.places)),
		},
		Engine: drift.Engine{Slots: make(map[netip.Addr]drift.Slot, len(d.inside)), Bindings: make(map[nat.Place]nat.Binding, len(d.places))},
		Kernel: drift.Kernel{Elements: make(map[netip.Addr]nat.Entry, len(d.inside))},
	}
	records := d.records
	if !d.known && len(d.inside) > 0 {
		var err error
		if records, err = p.store.RecordsAt(ctx, p.group.Name, d.inside); err != nil {
			return v, err
		}
	}
	for i := range records {
		v.Database.Records[records[i].Inside] = records[i].Pack()
	}
	rows, err := p.rowsAt(ctx, d.places)
	if err != nil {
		return v, err
	}
	for i := range rows {
		if !rows[i].Stored() {
			continue
		}
		if b, ok := rows[i].Binding(); ok {
			v.Database.Bindings[b.Place()] = b
		}
	}
	return v, nil
}

// showSlots adds the engine's and the kernel's state of the doubts to the
// views. Addresses that change from here on are recorded as touched, and left
// for the next pass.
func (p *pass) showSlots(v *drift.Views, d *doubts) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, inside := range d.inside {
		s := p.life.Slot(inside)
		if s != nil && s.Group() == p.group.Name {
			v.Engine.Slots[inside] = p.slotViewRLocked(s)
		}
		switch e, ok := p.kernel.EntryAt(inside); {
		case p.life.ServerOf(inside) != p.group.Group:
		case d.online && s != nil: // this look does not compare the kernel
			v.Kernel.Elements[inside] = s.Expected()
		case d.online:
		case ok:
			v.Kernel.Elements[inside] = e
		}
	}
	for _, at := range d.places {
		if b, ok := p.bindingAtRLocked(at); ok {
			v.Engine.Bindings[b.Place()] = b
		}
	}
}

// slotViewRLocked returns the engine's view of a slot.
func (p *pass) slotViewRLocked(s *lifecycle.Slot) drift.Slot {
	r := s.Record()
	b, _ := p.life.Engine().Live(s.Group(), s.Inside())
	return drift.Slot{
		Online: s.Online(), Identity: drift.IdentityOf(&r), Version: r.Version,
		Pending: s.Phase() == lifecycle.Idle && s.Online() && p.life.Engine().IsPending(s.Group(), s.Inside()),
		Bound:   s.Phase() != lifecycle.Idle, Stray: s.Stray(),
		Element: s.Expected(), Blocks: b.Blocks, Forwards: s.Forwards(),
	}
}

// mend executes the operations, those about records first.
func (p *pass) mend(ctx context.Context, r *repair, operations []drift.Operation) error {
	n := 0
	for n < len(operations) && operations[n].AboutRecord() {
		n++
	}
	r.mend(operations[:n])
	r.mend(operations[n:])
	p.drifts = append(p.drifts, r.drifts...)
	p.orphans = append(p.orphans, r.orphans...)
	if len(r.lost) > 0 {
		if err := p.store.Restore(ctx, r.lost); err != nil {
			return err
		}
		p.lost += len(r.lost)
	}
	return p.killAll(ctx, r.misplaced)
}
