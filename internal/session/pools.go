package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

// Outside prefixes are added, drained and removed at run time. A change is stored in the
// database before it takes effect, and goes the way of a reload then. Whoever still has a
// block of a prefix that is to be cut loses it, also after a kill in between: the change
// stays stored until nobody has one.

// readPools takes the changes of a group's pools from the database.
func (sg *servedGroups) readPools(ctx context.Context, name string) error {
	stored, err := sg.store.PoolChanges(ctx, name)
	if err != nil {
		return err
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	changes := poolChanges(stored)
	sg.setPoolsLocked(name, slices.Clone(changes))
	if g := sg.groups[name]; g != nil {
		g.pools = &changes
	}
	return nil
}

// setPoolsLocked replaces the changes of a group's pools. The map is replaced too: others
// may be reading it.
func (sg *servedGroups) setPoolsLocked(name string, changes poolChanges) {
	all := maps.Clone(sg.changes)
	all[name] = changes
	sg.changes = all
}

// combine returns the configuration with the changes of pools at run time.
func (sg *servedGroups) combine(file []lsn.GroupConfig) []lsn.GroupConfig {
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	return combined(file, sg.changes)
}

// keepPools cuts the bindings, and ends the mappings, that are left of prefixes that were taken
// away, stores the changes that still say something, and takes prefixes without blocks in use
// out of the kernel.
func (sg *servedGroups) keepPools(ctx context.Context) {
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	if sg.mayRegroup() != nil {
		return
	}
	for _, g := range sg.syncedGroups() {
		if err := sg.storePools(ctx, g); err != nil && ctx.Err() == nil {
			sg.log.Debug("the changes of pools are not in the database yet", "group", g.Name, "error", err)
		}
		sg.cutRemoved(g.Name)
		sg.mu.RLock()
		cut := sg.changes[g.Name].of(subscriberdb.PoolCut)
		sg.mu.RUnlock()
		sg.endMapped(ctx, g.Name, cut...)
	}
	if err := sg.trimKernel(ctx); err != nil && ctx.Err() == nil {
		sg.log.Debug("an outside prefix that is not used any more is still in the kernel", "error", err)
	}
}

// storePools prunes the changes of a group's pools, and stores them if the database may
// have others.
func (sg *servedGroups) storePools(ctx context.Context, g *group) error {
	sg.mu.Lock()
	if i := slices.IndexFunc(sg.file, func(c lsn.GroupConfig) bool { return c.Name == g.Name }); i >= 0 && len(sg.changes[g.Name]) > 0 {
		if pruned := sg.changes[g.Name].pruned(sg.file, &sg.file[i], sg.formerRLocked(g.Name)); !reflect.DeepEqual(pruned, sg.changes[g.Name]) {
			sg.setPoolsLocked(g.Name, pruned)
		}
	}
	changes := sg.changes[g.Name]
	stands := g.pools != nil && slices.Equal(*g.pools, changes)
	sg.mu.Unlock()
	if stands {
		return nil
	}
	if err := sg.leases.Check(ctx, g.Name); err != nil {
		return err
	}
	if err := sg.store.SavePoolChanges(ctx, g.Name, changes); err != nil {
		return err
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	g.pools = &changes
	return nil
}

// formerRLocked returns the prefixes that a group has no more, but blocks in use.
func (sg *servedGroups) formerRLocked(name string) []netip.Prefix {
	var former []netip.Prefix
	for _, u := range sg.life.Engine().Usage() {
		if u.Group == name && u.Former {
			former = append(former, u.Outside)
		}
	}
	return former
}

// trimKernel takes outside prefixes out of the kernel that no group has any more, and of
// which no block is in use or in its hold.
func (sg *servedGroups) trimKernel(ctx context.Context) error {
	sg.mu.RLock()
	var wanted []netip.Prefix
	for i := range sg.file {
		changes := sg.changes[sg.file[i].Name]
		wanted = merge(wanted, lessThan(changes.base(sg.file, &sg.file[i]), changes.removed()))
	}
	for name := range sg.groups {
		wanted = merge(wanted, sg.formerRLocked(name))
	}
	terms, idle := sg.terms, len(sg.unadopted) == 0
	trimmed := lessThan(terms.Outside, wanted)
	if idle && len(trimmed) > 0 {
		terms.Outside, terms.Mappings = wanted, sg.termsRLocked(sg.configs).Mappings
	}
	sg.mu.RUnlock()
	if !idle || len(trimmed) == 0 {
		return nil
	}
	if err := sg.kernel.SetPrefixes(ctx, terms.Inside, terms.Outside, terms.Mappings); err != nil {
		return err
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	sg.terms = terms
	sg.log.Info("outside prefixes without a block in use are taken out of the kernel", "outside", trimmed)
	return nil
}

// liveIn returns the inside addresses of a group with a live binding in an outside prefix.
func (sg *servedGroups) liveIn(name string, outside netip.Prefix) []netip.Addr {
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	if !slices.ContainsFunc(sg.life.Engine().Usage(), func(u lsn.Usage) bool {
		return u.Group == name && u.Used > 0 && u.Outside.Overlaps(outside)
	}) {
		return nil
	}
	var live []netip.Addr
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		from = sg.life.Engine().BindingsFrom(name, from, walk.Every, func(b nat.Binding) {
			if b.State.Live() && outside.Contains(b.Outside) {
				live = append(live, b.Inside)
			}
		})
		walk.Yield(sg.mu.RLocker())
	}
	return live
}

// cutRemoved cuts the live bindings of a group in the prefixes that were taken away with
// their bindings, and returns their number.
func (sg *servedGroups) cutRemoved(name string) int {
	sg.mu.RLock()
	cut := sg.changes[name].of(subscriberdb.PoolCut)
	sg.mu.RUnlock()
	n := 0
	for _, p := range cut {
		inside := sg.liveIn(name, p)
		n += len(inside)
		sg.mu.Lock()
		for _, a := range walk.All(&sg.mu, slices.All(inside)) {
			b, ok := sg.life.Engine().Live(name, a)
			if s := sg.life.Slot(a); ok && s != nil && s.Group() == name && p.Contains(b.Outside) {
				sg.life.Evict(s, sg.now())
			}
		}
		sg.mu.Unlock()
	}
	return n
}

// poolOrder is a change of an outside prefix that a person orders.
type poolOrder struct {
	group   string // "" for the one that has the prefix
	outside netip.Prefix
	kind    subscriberdb.PoolKind
}

// poolPlan is a change of pools that may be carried out.
type poolPlan struct {
	group        string
	before, next poolChanges
	live         []netip.Addr // inside addresses with live bindings in the prefix
}

// checkPool returns the plan for an order, or the reason to refuse it. regrouping is held.
func (sg *servedGroups) checkPool(o poolOrder) (plan poolPlan, err error) {
	if err := sg.mayRegroup(); err != nil {
		return plan, fmt.Errorf("%w: %w", inspect.ErrNotReady, err)
	}
	plan.group, plan.before, plan.next, err = sg.planPool(o)
	if err != nil {
		return plan, err
	}
	if err := sg.mayRoute(o); err != nil {
		return plan, err
	}
	mapped := sg.mappedIn(plan.group, o.outside)
	plan.live = sg.liveIn(plan.group, o.outside)
	if o.kind == subscriberdb.PoolRemoved && len(plan.live)+mapped > 0 {
		return plan, &inspect.LiveBindingsError{Outside: o.outside, Bindings: len(plan.live), Mappings: mapped}
	}
	return plan, nil
}

// changePool carries out an order, and returns the group and the number of bindings that
// are being cut.
func (sg *servedGroups) changePool(ctx context.Context, o poolOrder) (name string, cut int, err error) {
	sg.awaitAdopted(ctx)
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	plan, err := sg.checkPool(o)
	name, before, next := plan.group, plan.before, plan.next
	if err != nil || slices.Equal(before, next) {
		return name, 0, err
	}
	if err := sg.carryOut(ctx, name, before, next, func() {
		if o.kind == subscriberdb.PoolCut {
			sg.endMapped(ctx, name, o.outside)
		}
	}); err != nil {
		return name, 0, err
	}
	if o.kind == subscriberdb.PoolCut {
		cut = sg.cutRemoved(name)
	}
	sg.log.Info("outside prefix changed at run time", "group", name, "outside", o.outside, "change", o.kind, "bindings_cut", cut)
	return name, cut, nil
}

// mayRoute returns an error if a prefix that is to be added has an address of the machine itself:
// subscribers who got that could not be reached there.
func (sg *servedGroups) mayRoute(o poolOrder) error {
	if o.kind != subscriberdb.PoolAdded {
		return nil
	}
	own, err := sg.kernel.OwnAddressIn(o.outside)
	if err == nil && own.IsValid() {
		err = fmt.Errorf("%w: %v of %v is an address of this machine; an outside prefix is routed to it, and on none of its interfaces", inspect.ErrPoolConflict, own, o.outside)
	}
	return err
}

// endMapped ends the mappings of a group in prefixes that are removed with all that they have.
func (sg *servedGroups) endMapped(ctx context.Context, name string, outside ...netip.Prefix) {
	for _, p := range outside {
		if sg.mappedIn(name, p) == 0 {
			continue
		}
		sg.mu.RLock()
		g := sg.groups[name]
		sg.mu.RUnlock()
		sg.mappings.changing.Lock()
		err := sg.mappings.endIn(ctx, g, p)
		sg.mappings.changing.Unlock()
		if err != nil && ctx.Err() == nil {
			sg.log.Debug("the ends of mappings are not stored yet", "group", name, "outside", p, "error", err)
		}
	}
}

// carryOut stores the changes of a group's pools, ends the bindings in their way, and puts them in
// force. After an error those before are in force, and are stored again; nothing has ended unless
// the changes were stored.
func (sg *servedGroups) carryOut(ctx context.Context, name string, before, next poolChanges, end func()) error {
	if err := sg.leases.Check(ctx, name); err != nil {
		return unavailable(err)
	}
	replace := func(changes poolChanges) {
		sg.mu.Lock()
		defer sg.mu.Unlock()
		sg.setPoolsLocked(name, changes)
		sg.groups[name].pools = nil
	}
	if err := sg.store.SavePoolChanges(ctx, name, next); err != nil {
		replace(before) // it may be stored all the same
		return unavailable(err)
	}
	end()
	replace(next)
	if err := sg.regroup(ctx, sg.configured(), nil); err != nil {
		replace(before)
		return errors.Join(err, sg.store.SavePoolChanges(audit.Reverting(ctx, err), name, before))
	}
	return nil
}

// planPool returns the group of an order, and the changes of its pools before and after.
func (sg *servedGroups) planPool(o poolOrder) (name string, before, next poolChanges, err error) {
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	name, err = sg.groupOfPoolRLocked(o)
	if err != nil {
		return name, nil, nil, err
	}
	before = sg.changes[name]
	at := sg.now().UTC()
	i := slices.IndexFunc(sg.file, func(c lsn.GroupConfig) bool { return c.Name == name })
	if i < 0 { // it drains as a whole
		if o.kind != subscriberdb.PoolCut && o.kind != subscriberdb.PoolRemoved {
			return name, nil, nil, fmt.Errorf("%w: group %s is not configured, and gives no blocks", inspect.ErrPoolConflict, name)
		}
		return name, before, before.remove(o.outside, o.kind == subscriberdb.PoolCut, at), nil
	}
	c := &sg.file[i]
	if c.Deterministic {
		return name, nil, nil, fmt.Errorf("%w: group %s is deterministic: its blocks follow from the order of prefixes in the configuration; change them there, and reload", inspect.ErrPoolConflict, name)
	}
	switch o.kind {
	case subscriberdb.PoolAdded:
		if drains := common(c.Draining, []netip.Prefix{o.outside}); len(drains) > 0 {
			return name, nil, nil, fmt.Errorf("%w: the configuration says that %v of group %s drains; take `draining` out there, and reload", inspect.ErrPoolConflict, drains[0], name)
		}
		if p, ok := overlapping(sg.terms.Inside, o.outside); ok {
			return name, nil, nil, fmt.Errorf("%w: %v overlaps the inside prefix %v; an address is either inside or outside", inspect.ErrPoolConflict, o.outside, p)
		}
		if p, ok := overlapping(others(sg.file, name), o.outside); ok {
			return name, nil, nil, fmt.Errorf("%w: %v overlaps %v, which is another group's in the configuration", inspect.ErrPoolConflict, o.outside, p)
		}
		next = before.add(sg.file, c, o.outside, at)
	case subscriberdb.PoolDraining:
		next = before.drain(c, o.outside, at)
	default:
		next = before.remove(o.outside, o.kind == subscriberdb.PoolCut, at)
	}
	all := maps.Clone(sg.changes)
	all[name] = next
	if err := sg.life.Engine().MayReconfigure(combined(sg.file, all)); err != nil {
		return name, nil, nil, fmt.Errorf("%w: %w", inspect.ErrPoolConflict, err)
	}
	return name, before, next, nil
}

// overlapping returns the first of the prefixes that overlaps p.
func overlapping(prefixes []netip.Prefix, p netip.Prefix) (netip.Prefix, bool) {
	i := slices.IndexFunc(prefixes, p.Overlaps)
	if i < 0 {
		return netip.Prefix{}, false
	}
	return prefixes[i], true
}

// groupOfPoolRLocked returns the group that an order is about.
func (sg *servedGroups) groupOfPoolRLocked(o poolOrder) (string, error) {
	if o.kind == subscriberdb.PoolAdded {
		if o.group == "" {
			return sg.groupOfPrefixRLocked(o.outside)
		}
		if !slices.ContainsFunc(sg.file, func(c lsn.GroupConfig) bool { return c.Name == o.group }) {
			return o.group, fmt.Errorf("configured group %q: %w", o.group, inspect.ErrNotFound)
		}
		return o.group, nil
	}
	for _, name := range slices.Sorted(maps.Keys(sg.groups)) {
		if (o.group == "" || o.group == name) && whole(o.outside, sg.outsideOfRLocked(name, o.kind != subscriberdb.PoolDraining)) {
			return name, nil
		}
	}
	return o.group, fmt.Errorf("outside prefix %v: %w", o.outside, inspect.ErrNotFound)
}

// groupOfPrefixRLocked returns the group that gets a prefix back, as its configuration has it or it was
// added before, drained and removed ones included; else the only group.
func (sg *servedGroups) groupOfPrefixRLocked(outside netip.Prefix) (string, error) {
	for i := range sg.file {
		name := sg.file[i].Name
		if len(sg.file) == 1 || whole(outside, slices.Concat(sg.changes[name].base(sg.file, &sg.file[i]), sg.changes[name].removed())) {
			return name, nil
		}
	}
	return "", fmt.Errorf("none of %d groups has had %v: %w; name the group that is to have it", len(sg.file), outside, inspect.ErrNotFound)
}

// outsideOfRLocked returns the outside prefixes of a group: those in force, and, if asked,
// the former ones with blocks in use.
func (sg *servedGroups) outsideOfRLocked(name string, former bool) []netip.Prefix {
	var list []netip.Prefix
	if c, ok := sg.configuredRLocked(name); ok {
		list = c.AllOutside()
	}
	if former {
		list = append(list, sg.formerRLocked(name)...)
	}
	return list
}

// poolsRLocked returns the pools of every group, by group name and then in configured
// order, those that were removed last.
func (sg *servedGroups) poolsRLocked() []inspect.Pool {
	var pools []inspect.Pool
	listed := map[string][]netip.Prefix{}
	for _, u := range sg.life.Engine().Usage() {
		listed[u.Group] = append(listed[u.Group], u.Outside)
		pools = append(pools, sg.poolRLocked(u))
	}
	for i := range sg.file {
		name := sg.file[i].Name
		for _, p := range lessThan(common(sg.changes[name].removed(), sg.file[i].AllOutside()), listed[name]) {
			pools = append(pools, sg.poolRLocked(lsn.Usage{Group: name, Outside: p, Draining: true, Former: true}))
		}
	}
	slices.SortStableFunc(pools, func(a, b inspect.Pool) int { return strings.Compare(a.Group, b.Group) })
	return pools
}

// poolRLocked adds to the counts of a prefix where it comes from.
func (sg *servedGroups) poolRLocked(u lsn.Usage) inspect.Pool {
	pool := inspect.Pool{Usage: u, Origin: inspect.PoolFormer}
	changes := sg.changes[u.Group]
	if i := slices.IndexFunc(sg.file, func(c lsn.GroupConfig) bool { return c.Name == u.Group }); i >= 0 {
		switch {
		case whole(u.Outside, sg.file[i].AllOutside()):
			pool.Origin = inspect.PoolConfigured
		case whole(u.Outside, changes.base(sg.file, &sg.file[i])):
			pool.Origin = inspect.PoolRunTime
		}
	}
	for _, c := range changes {
		if !covers(c.Prefix, u.Outside) || pool.Change != 0 && c.Kind == subscriberdb.PoolAdded {
			continue
		}
		pool.Change, pool.ChangedAt = poolKinds[c.Kind], c.At
	}
	return pool
}

var poolKinds = map[subscriberdb.PoolKind]inspect.PoolChange{
	subscriberdb.PoolAdded: inspect.PoolAdded, subscriberdb.PoolDraining: inspect.PoolDrained,
	subscriberdb.PoolRemoved: inspect.PoolRemoved, subscriberdb.PoolCut: inspect.PoolRemoved,
}

// Pools returns the block counts of every outside prefix.
func (v *Backend) Pools(context.Context) ([]inspect.Pool, error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	return v.served.poolsRLocked(), nil
}

// AddPool makes a group give the blocks of an outside prefix.
func (v *Backend) AddPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error) {
	pools, _, err := v.changePool(ctx, poolOrder{group, outside, subscriberdb.PoolAdded})
	return pools, err
}

// DrainPool makes a group give no more blocks of an outside prefix.
func (v *Backend) DrainPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error) {
	pools, _, err := v.changePool(ctx, poolOrder{group, outside, subscriberdb.PoolDraining})
	return pools, err
}

// RemovePool takes an outside prefix away from a group, with its live bindings only if
// cut.
func (v *Backend) RemovePool(ctx context.Context, group string, outside netip.Prefix, cut bool) ([]inspect.Pool, int, error) {
	kind := subscriberdb.PoolRemoved
	if cut {
		kind = subscriberdb.PoolCut
	}
	return v.changePool(ctx, poolOrder{group, outside, kind})
}

// changePool carries out an order, and returns the pools in the prefix.
func (v *Backend) changePool(ctx context.Context, o poolOrder) ([]inspect.Pool, int, error) {
	name, cut, err := v.served.changePool(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	return v.served.poolsIn(name, o.outside), cut, nil
}

// poolsIn returns the pools of a group in an outside prefix.
func (sg *servedGroups) poolsIn(name string, outside netip.Prefix) []inspect.Pool {
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	return slices.DeleteFunc(sg.poolsRLocked(), func(p inspect.Pool) bool {
		return p.Group != name || !p.Outside.Overlaps(outside)
	})
}

// PreviewAddPool returns the pools in an outside prefix that AddPool would take, as they are.
func (p *Previews) PreviewAddPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error) {
	pools, _, err := p.pool(ctx, poolOrder{group, outside, subscriberdb.PoolAdded})
	return pools, err
}

// PreviewDrainPool does the same for DrainPool.
func (p *Previews) PreviewDrainPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error) {
	pools, _, err := p.pool(ctx, poolOrder{group, outside, subscriberdb.PoolDraining})
	return pools, err
}

// PreviewRemovePool does the same for RemovePool. It returns also the number of bindings that
// would be cut, and of their conntrack entries.
func (p *Previews) PreviewRemovePool(ctx context.Context, group string, outside netip.Prefix, cut bool) (pools []inspect.Pool, bindings, sessions int, err error) {
	kind := subscriberdb.PoolRemoved
	if cut {
		kind = subscriberdb.PoolCut
	}
	pools, live, err := p.pool(ctx, poolOrder{group, outside, kind})
	for _, inside := range live {
		sessions += p.of.kernel.SessionCount(inside)
	}
	return pools, len(live), sessions, err
}

// pool checks an order, and returns the pools in its prefix, and the inside addresses with live
// bindings there.
func (p *Previews) pool(ctx context.Context, o poolOrder) ([]inspect.Pool, []netip.Addr, error) {
	sg := p.of.served
	sg.awaitAdopted(ctx)
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	plan, err := sg.checkPool(o)
	if err != nil {
		return nil, nil, err
	}
	return p.of.served.poolsIn(plan.group, o.outside), plan.live, nil
}
