package reconcile

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// StretchSize is the number of addresses or blocks that are compared at once.
const StretchSize = 512

// Comparison selects the extent of a comparison of database, engine and kernel.
type Comparison struct {
	DryRun bool   // repair nothing
	Audit  bool   // walk the conntrack table too
	Part   Part   // default Everything
	pace   *pacer // nil: without pauses
}

// Part is the part of the state that a comparison covers.
type Part uint8

// The parts of a comparison.
const (
	Everything        Part = iota
	Presence               // whether records stand, and the kernel holds the expected entries
	PresenceAndStrays      // also entries that others may have added to the kernel
)

// A pass is one comparison of a group, in stretches. A cheap first look at a
// stretch finds possible differences. Only these are read again, compared with
// the engine, and repaired. So a pass needs no memory for equal state, may take
// long, and does not delay concurrent changes. One without pauses reads records
// and bindings once, in the order of the database, keeps 24 octets of each, and
// compares them in the order of the engine.
type pass struct {
	*Reconciler
	group *Group
	how   Comparison
	anew  bool // the feed is taken up again after this look: its earlier entries may have been missed
	alone bool // reconciling is held for the whole pass

	// The addresses where this pass saw the slot's record in the database. A paced
	// pass asks again instead.
	seen addrtable.Table[struct{}]

	drifts  []inspect.Drift
	gone    map[netip.Addr]uint64 // tenures without a record
	orphans []netip.Addr          // subscribers without a record, if anew
	lost    int                   // records written back into a suspect database
}

func (r *Reconciler) newPass(g *Group, how Comparison) *pass {
	return &pass{Reconciler: r, group: g, how: how, gone: map[netip.Addr]uint64{}}
}

// look compares the selected part.
func (p *pass) look(ctx context.Context) error {
	switch p.how.Part {
	case Presence:
		return p.presence(ctx)
	case PresenceAndStrays:
		return p.inOrder(ctx, p.presence, p.elements)
	}
	return p.everything(ctx)
}

// everything compares all state of the group, the online subscribers first,
// because the other comparisons depend on them.
func (p *pass) everything(ctx context.Context) error {
	if p.how.pace == nil {
		return p.inOrder(ctx, p.records, p.presence, p.allBindings, p.elements, p.sessions)
	}
	looks := []func(context.Context) error{p.records, p.presence, p.bindings, p.rows, p.elements, p.sessions}
	for range looks { // a pass may take long, so after a failure it continues at the failed look
		if err := looks[p.group.begin](ctx); err != nil {
			return err
		}
		p.group.begin = (p.group.begin + 1) % len(looks)
	}
	return nil
}

// inOrder runs the looks one after the other.
func (p *pass) inOrder(ctx context.Context, looks ...func(context.Context) error) error {
	for _, look := range looks {
		if err := look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// presence checks every slot: whether its record stands, and whether the kernel
// holds the expected entry. absences checks only the records, gates only the
// kernel.
func (p *pass) presence(ctx context.Context) error { return p.slots(ctx, true, true) }
func (p *pass) absences(ctx context.Context) error { return p.slots(ctx, true, false) }
func (p *pass) gates(ctx context.Context) error    { return p.slots(ctx, false, true) }

// records compares the database's online subscribers with the slots.
func (p *pass) records(ctx context.Context) error {
	if p.how.pace == nil {
		return p.recordsInOrder(ctx)
	}
	return p.store.Versions(ctx, p.group.Name, func(standing []subscriberdb.RecordVersion) error {
		return p.compareAndRest(ctx, &doubts{inside: p.appendUnknown(nil, standing)})
	})
}

// recordsInOrder is records in the order of slots.
func (p *pass) recordsInOrder(ctx context.Context) error {
	var d doubts // gathered, because each second look costs some requests
	err := p.store.VersionsInOrder(ctx, p.group.Name, p.online(), func(standing []subscriberdb.RecordVersion) error {
		if d.inside = p.appendUnknown(d.inside, standing); len(d.inside) < StretchSize {
			return ctx.Err()
		}
		err := p.compareAndRest(ctx, &d)
		d.inside = d.inside[:0]
		return err
	})
	if err != nil {
		return err
	}
	return p.compareAndRest(ctx, &d)
}

// online returns the number of the group's subscribers.
func (p *pass) online() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.group.Online()
}

// sees notes that the database has the record of an address's slot.
func (p *pass) sees(inside netip.Addr) {
	if p.how.pace == nil && inside.Is4() {
		p.seen.Put(inside, struct{}{})
	}
}

// appendUnknown appends the addresses whose records differ from their slots.
func (p *pass) appendUnknown(unknown []netip.Addr, standing []subscriberdb.RecordVersion) []netip.Addr {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, r := range standing {
		s := p.life.Slot(r.Inside)
		if s == nil || !s.Online() || s.Group() != p.group.Name || r.Version == (subscriber.Version{}) || s.Packed().Version() != r.Version {
			unknown = append(unknown, r.Inside)
		} else {
			p.sees(r.Inside)
		}
	}
	return unknown
}

// slots checks every slot of the group, in order of address: whether its record
// is gone, if this pass has not seen it, and whether the kernel holds the
// expected entry.
func (p *pass) slots(ctx context.Context, records, elements bool) error {
	var online []netip.Addr
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		d := doubts{online: !elements}
		online, from = p.slotsFrom(from, online[:0], &d, elements)
		if records && len(online) > 0 {
			gone, err := p.store.Gone(ctx, p.group.Name, online)
			if err != nil {
				return err
			}
			d.inside = append(d.inside, gone...)
		}
		if err := p.compareAndRest(ctx, &d); err != nil {
			return err
		}
	}
	return nil
}

// slotsFrom checks a stretch of slots from an address on. It appends the
// group's online addresses whose record was not seen, adds to d the addresses
// with an unexpected kernel entry, if asked, and returns the address to
// continue from.
func (p *pass) slotsFrom(from netip.Addr, online []netip.Addr, d *doubts, elements bool) ([]netip.Addr, netip.Addr) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	looked := 0
	for inside, s := range p.life.Slots().From(from) {
		if looked++; looked > StretchSize {
			return online, inside
		}
		if s.Group() != p.group.Name {
			continue
		}
		if _, seen := p.seen.At(inside); s.Online() && !seen {
			online = append(online, inside)
		}
		if elements && p.oddRLocked(s) {
			d.inside = append(d.inside, inside)
		}
	}
	return online, netip.Addr{}
}

// oddRLocked reports whether the kernel may lack the expected entry of a slot
// at rest, or an online slot without a block does not wait for one.
func (p *pass) oddRLocked(s *lifecycle.Slot) bool {
	if s.Busy() || s.Stray() {
		return false
	}
	if s.Phase() == lifecycle.Idle {
		return s.Online() && !p.life.Engine().IsPending(s.Group(), s.Inside())
	}
	e, ok := p.kernel.EntryAt(s.Inside())
	return !ok && s.Expected().Gate != nat.GateClosed || ok && e != s.Expected()
}

// allBindings is bindings and rows with one read of the stored bindings instead of two, for
// a pass without pauses. What changes between the read and the comparison is in doubt.
func (p *pass) allBindings(ctx context.Context) error {
	digests := subscriberdb.NewBindingDigests(p.online())
	err := p.store.BindingRows(ctx, p.group.Name, func(rows []subscriberdb.BindingRow) error {
		digests.Add(rows)
		return nil
	})
	if err != nil {
		return err
	}
	var list []nat.Binding
	var differ []nat.Place
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		list, from = p.bindingsFrom(p.group.Name, from, list[:0])
		differ = digests.Differing(differ, list, from)
		if len(differ) < StretchSize && from.IsValid() { // gathered, because each second look costs some requests
			continue
		}
		for some := range slices.Chunk(differ, StretchSize) {
			if err := p.compareAndRest(ctx, &doubts{places: some}); err != nil {
				return err
			}
		}
		differ = differ[:0]
	}
	return ctx.Err()
}

// bindings checks the stored form of the bindings in force.
func (p *pass) bindings(ctx context.Context) error {
	var list []nat.Binding
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		list, from = p.bindingsFrom(p.group.Name, from, list[:0])
		d := doubts{}
		var err error
		if d.places, err = p.notStoredSo(ctx, list); err != nil {
			return err
		}
		if err := p.compareAndRest(ctx, &d); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) bindingsFrom(group string, from netip.Addr, list []nat.Binding) ([]nat.Binding, netip.Addr) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	next := r.life.Engine().BindingsFrom(group, from, StretchSize, func(b nat.Binding) { list = append(list, b) })
	return list, next
}

// notStoredSo returns the bindings whose stored form differs in any detail.
func (p *pass) notStoredSo(ctx context.Context, list []nat.Binding) (differ []nat.Place, err error) {
	places := make([]nat.Place, len(list))
	for i := range list {
		places[i] = list[i].Place()
	}
	rows, err := p.rowsAt(ctx, places)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if !rows[i].Is(&list[i]) {
			differ = append(differ, places[i])
		}
	}
	return differ, nil
}

func (p *pass) rowsAt(ctx context.Context, places []nat.Place) ([]subscriberdb.BindingRow, error) {
	if len(places) == 0 {
		return nil, nil
	}
	return p.store.BindingRowsAt(ctx, p.group.Name, places)
}

// rows checks for stored bindings that are not in force.
func (p *pass) rows(ctx context.Context) error {
	return p.store.BindingRows(ctx, p.group.Name, func(rows []subscriberdb.BindingRow) error {
		d := doubts{places: p.notInForce(rows)}
		return p.compareAndRest(ctx, &d)
	})
}

func (p *pass) notInForce(rows []subscriberdb.BindingRow) (stale []nat.Place) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i := range rows {
		if _, ok := p.bindingAtRLocked(rows[i].Place); !ok {
			stale = append(stale, rows[i].Place)
		}
	}
	return stale
}

// bindingAtRLocked returns the group's binding whose block begins at a place.
func (p *pass) bindingAtRLocked(at nat.Place) (nat.Binding, bool) {
	b, ok := p.life.Engine().AtOutside(at.Outside, at.First)
	return b, ok && b.Group == p.group.Name && b.First == at.First
}

// elements checks for kernel entries that should not exist. Entries that should
// be different are found by slots.
func (p *pass) elements(ctx context.Context) error {
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		var entries []nat.Entry
		entries, from = p.kernel.EntriesFrom(ctx, from, StretchSize)
		var d doubts
		var nobodys []netip.Addr
		d.inside, nobodys = p.unexpected(entries)
		if err := p.closeNobodys(ctx, nobodys); err != nil {
			return err
		}
		if err := p.compareAndRest(ctx, &d); err != nil {
			return err
		}
	}
	return nil
}

// unexpected returns the addresses with a kernel entry although their slot is
// closed or missing, and the addresses that are in no group.
func (p *pass) unexpected(entries []nat.Entry) (odd, nobodys []netip.Addr) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i := range entries {
		e := &entries[i]
		switch p.life.ServerOf(e.Inside) {
		case p.group.Group:
			if s := p.life.Slot(e.Inside); s == nil || !s.Busy() && !s.Stray() && s.Expected().Gate == nat.GateClosed {
				odd = append(odd, e.Inside)
			}
		case nil:
			nobodys = append(nobodys, e.Inside)
		}
	}
	return odd, nobodys
}

// closeNobodys reports kernel entries of addresses in no group, and removes
// them.
func (p *pass) closeNobodys(ctx context.Context, inside []netip.Addr) error {
	if len(inside) == 0 {
		return nil
	}
	if !p.how.DryRun {
		if err := p.leases.Check(ctx, p.group.Name); err != nil {
			return err
		}
		if !p.alone { // a group that a reload adds may take the entries over
			p.reconciling.Lock()
			defer p.reconciling.Unlock()
			inside = p.stillNobodys(inside)
		}
		if err := p.removeOrphanElements(ctx, inside); err != nil {
			return err
		}
	}
	for _, a := range inside {
		p.drifts = append(p.drifts, inspect.Drift{
			Kind: inspect.DriftElementOrphaned, Inside: a, What: "kernel elements of an address in no group; removed", Mended: !p.how.DryRun,
		})
		if !p.how.DryRun && !p.anew {
			p.observer.Drift(string(inspect.DriftElementOrphaned))
		}
	}
	return nil
}

// stillNobodys returns the addresses that are still in no group.
func (p *pass) stillNobodys(inside []netip.Addr) []netip.Addr {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.DeleteFunc(inside, func(a netip.Addr) bool { return p.life.ServerOf(a) != nil })
}

// end keeps the tenures without a record, so that each is counted once.
func (p *pass) end() {
	if p.how.DryRun {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.group.gone = p.gone
}
