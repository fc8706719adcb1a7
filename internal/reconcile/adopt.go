package reconcile

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

// An adoption takes over, at the start, the kernel's state and the stored
// bindings of a group. Bindings on which both agree come first, then those of
// the kernel alone (live flows use them), then those of the database alone. A
// block never gets a second owner (I1). After a failure it can be repeated, and
// continues.
type adoption struct {
	p       *pass
	suspect bool
	lost    bool // the kernel was programmed before, and no group has its marker

	free    bool          // every kernel entry of the group has a slot
	stored  int           // number of bindings in the database
	waiting []nat.Binding // live bindings that the kernel holds differently, or not at all
	held    []nat.Binding
	refused []nat.Binding // with several blocks, and not taken over: one of them is another's
	differ  []nat.Place   // bindings whose stored form may be outdated

	// By inside address, other blocks with sessions of entries that are not stored; nil:
	// not looked for.
	further map[netip.Addr][]nat.Block

	live   []nat.Binding // buffers of agreeing
	from   []*subscriberdb.BindingRow
	inside []netip.Addr
}

func newAdoption(p *pass, suspect, lost bool) *adoption {
	return &adoption{p: p, suspect: suspect, lost: lost}
}

// looks returns the steps of an adoption, in order. A failed attempt loses its
// list of outdated rows, so the next one compares all bindings.
func (a *adoption) looks() []func(context.Context) error {
	p := a.p
	looks := []func(context.Context) error{a.bindings, a.records, p.absences, p.settleOrphans, p.gates}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.group.attempted {
		return append(looks, p.bindings, p.rows, p.elements)
	}
	p.group.attempted = true
	return append(looks, a.differing, p.elements)
}

// bindings creates slots for the bindings of kernel and database.
func (a *adoption) bindings(ctx context.Context) error {
	p, g := a.p, a.p.group
	a.free = p.kernel.Known() && !p.holdsMore(ctx, g)
	if err := p.store.BindingRowsInOrder(ctx, g.Name, func(rows []subscriberdb.BindingRow) error { return a.agreeing(ctx, rows) }); err != nil {
		return err
	}
	if err := p.kernel.LearnRest(ctx); err != nil {
		return err
	}
	if err := a.kernelOnly(ctx); err != nil {
		return err
	}
	if err := a.databaseOnly(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if (a.suspect || a.lost) && a.stored == 0 {
		p.quarantineLocked(g)
	}
	return p.served.RetireLocked(g.Name) // before any block is allocated
}

// holdsMore reports whether the kernel holds an entry of the group that has no
// slot.
func (r *Reconciler) holdsMore(ctx context.Context, g *Group) bool {
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		var entries []nat.Entry
		entries, from = r.kernel.EntriesFrom(ctx, from, StretchSize)
		if lone, _, _ := r.unadoptedOf(g, entries); len(lone) > 0 {
			return true
		}
	}
	return false
}

// agreeing adopts the rows that equal the kernel's entries. If the kernel holds
// no other entry, the remaining live rows cannot collide, and are adopted too.
func (a *adoption) agreeing(ctx context.Context, rows []subscriberdb.BindingRow) error {
	p, g := a.p, a.p.group
	live, from, inside := a.live[:0], a.from[:0], a.inside[:0]
	defer func() { a.live, a.from, a.inside = live, from, inside }()
	for i := range rows {
		b, ok := rows[i].Binding()
		a.stored++
		switch {
		case !ok:
		case b.State == nat.Held:
			a.held = append(a.held, b)
		default:
			live, from, inside = append(live, b), append(from, &rows[i]), append(inside, b.Inside)
		}
	}
	if err := p.kernel.Learn(ctx, inside); err != nil {
		return err
	}
	records, err := a.recordsOf(ctx, live)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for i, b := range live {
		switch e, ok := p.kernel.EntryAt(b.Inside); {
		case ok && e.Block == b.Range():
			p.life.Adopt(g.Group).Entry(e, b, records[b.Inside], nil, now)
		case !ok && a.free:
			p.life.Adopt(g.Group).Stored(b, records[b.Inside], now)
		default:
			a.waiting = append(a.waiting, b)
			continue
		}
		a.checkLocked(from[i])
		a.noteRefusedLocked(b)
	}
	return nil
}

// noteRefusedLocked notes a binding with several blocks that was not taken over.
func (a *adoption) noteRefusedLocked(b nat.Binding) {
	if b.Len() == 1 {
		return
	}
	if taken, _ := a.p.bindingAtRLocked(b.Place()); taken.Inside != b.Inside || taken.Blocks != b.Blocks {
		a.refused = append(a.refused, b)
	}
}

// checkLocked notes a row that differs from the engine's binding in any detail.
func (a *adoption) checkLocked(row *subscriberdb.BindingRow) {
	if b, ok := a.p.bindingAtRLocked(row.Place); !ok || !row.Is(&b) {
		a.differ = append(a.differ, row.Place)
	}
}

// recordsOf reads the records of draining bindings and those with a grace time;
// only for these does adoption depend on the record.
func (a *adoption) recordsOf(ctx context.Context, live []nat.Binding) (map[netip.Addr]*subscriber.Record, error) {
	var inside []netip.Addr
	for i := range live {
		if e, ok := a.p.kernel.EntryAt(live[i].Inside); ok && e.Gate == nat.GateDraining || !live[i].GraceUntil.IsZero() {
			inside = append(inside, live[i].Inside)
		}
	}
	return a.recordsAt(ctx, inside)
}

func (a *adoption) recordsAt(ctx context.Context, inside []netip.Addr) (map[netip.Addr]*subscriber.Record, error) {
	if len(inside) == 0 {
		return nil, nil
	}
	records, err := a.p.store.RecordsAt(ctx, a.p.group.Name, inside)
	if err != nil {
		return nil, err
	}
	at := make(map[netip.Addr]*subscriber.Record, len(records))
	for i := range records {
		at[records[i].Inside] = &records[i]
	}
	return at, nil
}

// kernelOnly adopts kernel entries without an equal row, and removes those of
// addresses in no group.
func (a *adoption) kernelOnly(ctx context.Context) error {
	p, g := a.p, a.p.group
	rows := make(map[netip.Addr]nat.Binding, len(a.waiting))
	for _, b := range a.waiting {
		if e, ok := p.kernel.EntryAt(b.Inside); ok && b.Covers(e.Block) { // an address may have several rows
			rows[b.Inside] = b
		}
	}
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		var entries []nat.Entry
		entries, from = p.kernel.EntriesFrom(ctx, from, StretchSize)
		lone, inside, nobodys := p.unadoptedOf(g, entries)
		if err := a.p.closeNobodys(ctx, nobodys); err != nil {
			return err
		}
		records, err := a.recordsAt(ctx, inside)
		if err != nil {
			return err
		}
		if err := a.findFurther(ctx, lone, rows); err != nil {
			return err
		}
		p.mu.Lock()
		for _, e := range lone {
			p.life.Adopt(g.Group).Entry(e, rows[e.Inside], records[e.Inside], a.further[e.Inside], p.now())
			a.differ = append(a.differ, e.Place())
			if b, ok := p.life.Engine().Live(g.Name, e.Inside); ok && b.Place() != e.Place() {
				a.differ = append(a.differ, b.Place())
			}
		}
		p.mu.Unlock()
	}
	return nil
}

// findFurther finds, once, the blocks that subscribers have sessions in beside those of their
// entries, if one of the entries is not stored and bindings of the group may have several
// blocks: the entry does not name them, and nobody else may get them (I5).
func (a *adoption) findFurther(ctx context.Context, lone []nat.Entry, rows map[netip.Addr]nat.Binding) error {
	p, g := a.p, a.p.group
	unstored := slices.ContainsFunc(lone, func(e nat.Entry) bool {
		_, stored := rows[e.Inside]
		return !stored
	})
	if a.further != nil || !unstored || g.Config.MaxBlocks < 2 {
		return nil
	}
	a.further = map[netip.Addr][]nat.Block{}
	return p.kernel.Sessions(ctx, func(s nftnat.Session) error {
		inside, port := s.Inside.Addr(), nat.Port(s.Outside.Port())
		e, ok := p.kernel.EntryAt(inside)
		if !ok || e.Outside != s.Outside.Addr() || e.Contains(s.Outside.Addr(), port) {
			return ctx.Err()
		}
		p.mu.RLock()
		defer p.mu.RUnlock()
		b, ok := p.life.Engine().BlockAt(g.Name, e.Outside, port)
		if ok && p.life.Groups().Of(inside) == g.Group && !slices.Contains(a.further[inside], b) {
			a.further[inside] = append(a.further[inside], b)
		}
		return ctx.Err()
	})
}

// unadoptedOf returns the entries of the group that have no slot yet, with
// their addresses, and the addresses that are in no group.
func (r *Reconciler) unadoptedOf(g *Group, entries []nat.Entry) (lone []nat.Entry, inside, nobodys []netip.Addr) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for i := range entries {
		e := &entries[i]
		if r.life.Slot(e.Inside) != nil {
			continue
		}
		switch r.life.Groups().Of(e.Inside) {
		case g.Group:
			lone, inside = append(lone, *e), append(inside, e.Inside)
		case nil:
			nobodys = append(nobodys, e.Inside)
		}
	}
	return lone, inside, nobodys
}

// databaseOnly adopts the remaining rows, live ones first, so that a held one
// never excludes a live one. Then it holds what is nobody else's of those that
// were refused.
func (a *adoption) databaseOnly(ctx context.Context) error {
	p, g := a.p, a.p.group
	records, err := a.recordsOf(ctx, a.waiting)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rows := range [][]nat.Binding{a.waiting, a.held} {
		slices.SortFunc(rows, func(x, y nat.Binding) int { return x.Inside.Compare(y.Inside) })
		for i := range walk.All(p.mu, slices.All(rows)) {
			p.life.Adopt(g.Group).Stored(rows[i], records[rows[i].Inside], p.now())
			a.differ = append(a.differ, rows[i].Place())
			a.noteRefusedLocked(rows[i])
		}
	}
	for i := range walk.All(p.mu, slices.All(a.refused)) {
		p.life.Adopt(g.Group).Refused(a.refused[i], p.now())
		for b := range a.refused[i].All() {
			a.differ = append(a.differ, b.Place())
		}
	}
	a.waiting, a.held, a.refused = nil, nil, nil
	return nil
}

// records assigns the records to the adopted slots, and settles slots without
// one.
func (a *adoption) records(ctx context.Context) error {
	p, g := a.p, a.p.group
	err := p.store.Records(ctx, g.Name, func(records []subscriber.Record) error {
		d := a.claim(records)
		return a.p.compare(ctx, &d)
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range walk.All(p.mu, p.life.Slots().All()) {
		if s.Group() == g.Name && s.Unclaimed() {
			p.life.Adopt(g.Group).Claim(s, nil, a.suspect, p.now())
		}
	}
	for _, s := range walk.All(p.mu, p.life.Slots().All()) {
		if s.Group() == g.Name {
			p.life.Adopt(g.Group).Assign(s, p.now())
		}
	}
	g.adopted = true
	return nil
}

// claim assigns present records to adopted slots, and returns the others as
// doubts.
func (a *adoption) claim(records []subscriber.Record) doubts {
	p, g := a.p, a.p.group
	d := doubts{known: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range records {
		r := &records[i]
		s := p.life.Slot(r.Inside)
		if s != nil && s.Group() == g.Name && s.Unclaimed() {
			p.life.Adopt(g.Group).Claim(s, r, a.suspect, p.now())
		}
		if s == nil || !s.Online() || s.Group() != g.Name || s.Packed().Version() != subscriber.ParseVersion(r.Version) {
			d.inside, d.records = append(d.inside, r.Inside), append(d.records, *r)
		} else {
			a.p.sees(r.Inside)
		}
	}
	return d
}

// differing compares the bindings whose stored form may be outdated.
func (a *adoption) differing(ctx context.Context) error {
	for len(a.differ) > 0 {
		some := a.differ[:min(StretchSize, len(a.differ))]
		a.differ = a.differ[len(some):]
		if err := a.p.compare(ctx, &doubts{places: some}); err != nil {
			return err
		}
	}
	return nil
}

// quarantineLocked holds all free blocks of a group back for one hold time: the
// kernel was programmed, and the lost database knew which blocks were in their
// hold (NAT-30).
func (r *Reconciler) quarantineLocked(g *Group) {
	r.life.Adopt(g.Group).Quarantine(r.now())
	blocks, until := r.life.Engine().Quarantined(g.Name)
	r.log.Warn("free blocks wait for a hold: the kernel was programmed, and the database knows none of its bindings; new subscribers wait for a block meanwhile",
		"group", g.Name, "blocks", blocks, "until", until)
}
