package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// A group, or a part of one, that the configuration no longer has is served
// until it is empty: after a reload by the engine that knows it, after a start
// from the state in the database. Before any group is touched, adoptServed
// determines which remains are served beside the configuration, and refuses the
// start if the two contradict each other.

// errRefused: the database and the configuration contradict each other, and a
// person must say which of them counts.
var errRefused = errors.New("start refused")

const refusalHint = "put it back into the configuration until it has drained (sessionctl pool list), or start once with --discard-unconfigured, which ends these customers"

// servedStore keeps in the database the configuration that each group was last
// served with.
type servedStore interface {
	Served(ctx context.Context, named []string) ([]subscriberdb.Served, error)
	SaveServed(ctx context.Context, s subscriberdb.Served) error
	ForgetServed(ctx context.Context, group string) error
	PoolChanges(ctx context.Context, group string) ([]subscriberdb.PoolChange, error)
	SavePoolChanges(ctx context.Context, group string, changes []subscriberdb.PoolChange) error
	Serve(groups []subscriberdb.Group) error
	Unserve(group string) error
	BindingRows(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error
}

// servedGroups keeps the groups that are served: the configuration, and the
// draining remains of older ones.
type servedGroups struct {
	*sharedState
	store        servedStore
	kernel       termKernel
	health       *databaseHealth
	leases       *groupLeases
	timers       *lifeTimers
	mappings     *mappingKeeper
	natLog       *natLogKeeper
	by           string       // this daemon's name, which stays the same after a restart
	discard      bool         // end bindings that the configuration does not cover
	mostMappings int          // learned ones, of all groups
	follow       func(*group) // starts following the feed of a new group; called with the lock held
	lost         func(string) // tells watchers that events of a group are missing; likewise

	regrouping sync.Mutex // serializes changes of the served groups; taken before reconciling

	// Guarded by mu.
	file      []lsn.GroupConfig          // the configuration
	changes   map[string]poolChanges     // of its outside prefixes at run time, by group
	configs   []lsn.GroupConfig          // the configuration with these changes, in the engine
	terms     Terms                      // in the kernel
	unadopted map[string]lsn.GroupConfig // groups with their drains, until their bindings are in the engine
	prepared  bool                       // start has determined the groups to serve
	guards    map[string]guard.Limits    // by group name
}

// plan is the configuration that a group is served with when this daemon
// starts.
type plan struct {
	config  lsn.GroupConfig // including its drains
	inside  []netip.Prefix  // those that the configuration lacks
	retired *subscriberdb.Served
	drains  bool
}

// start determines the groups to serve, and then follows the feed of each.
func (sg *servedGroups) start(ctx context.Context) error {
	var refused error
	err := sg.health.Retry(ctx, "take up what is served from the database", func(ctx context.Context) error {
		err := sg.adoptServed(ctx)
		if errors.Is(err, errRefused) || errors.Is(err, ownership.ErrOwned) {
			refused = err
			return nil
		}
		return sg.noteStart(err)
	})
	if err != nil || refused != nil {
		return errors.Join(err, refused)
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	sg.prepared = true
	sg.tellFormulas(sg.configs)
	for _, g := range sg.groups {
		sg.follow(g)
	}
	return nil
}

// noteStart keeps, for readiness, the reason that the groups could not be taken
// up.
func (sg *servedGroups) noteStart(err error) error {
	sg.mu.Lock()
	defer sg.mu.Unlock()
	for _, g := range sg.groups {
		g.failure = err
	}
	return err
}

// adoptServed takes the leases of the groups, and sets engine, kernel and
// store to everything that is served. It can be repeated after a failure.
func (sg *servedGroups) adoptServed(ctx context.Context) error {
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	plans, err := sg.planAll(ctx)
	if err != nil {
		return err
	}
	configs := make([]lsn.GroupConfig, len(plans))
	for i := range plans {
		configs[i] = plans[i].config
	}
	engine, err := lsn.New(configs)
	if err != nil {
		return fmt.Errorf("%w: %w; %s", errRefused, err, refusalHint)
	}
	terms := TermsOf(configs, sg.mostMappings)
	terms.Mappings.Pinned = terms.Mappings.Pinned || len(sg.kernel.Pinned()) > 0 // of an earlier run
	if err := terms.program(ctx, sg.kernel); err != nil {
		return err
	}
	if err := sg.store.Serve(moreGroups(plans)); err != nil {
		return err
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	sg.terms = terms
	sg.life.SetEngine(engine)
	sg.unadopted = map[string]lsn.GroupConfig{}
	for i := range plans {
		sg.serveLocallyLocked(&plans[i])
	}
	for _, c := range sg.configs {
		g := sg.groups[c.Name]
		g.Config = c
		sg.mapLocked(g)
	}
	return nil
}

// prefixesOf returns all prefixes of the groups.
func prefixesOf(configs []lsn.GroupConfig) (inside, outside []netip.Prefix) {
	for i := range configs {
		inside, outside = merge(inside, configs[i].Inside), merge(outside, configs[i].AllOutside())
	}
	return inside, outside
}

// moreGroups returns the groups and prefixes that the store has to serve beside
// the configuration.
func moreGroups(plans []plan) []subscriberdb.Group {
	var more []subscriberdb.Group
	for i := range plans {
		p := &plans[i]
		switch {
		case p.retired != nil:
			more = append(more, subscriberdb.Group{
				Name: p.config.Name, Inside: p.config.Inside, RecordTTL: p.retired.RecordTTL, Guard: p.retired.Guard,
			})
		case len(p.inside) > 0:
			more = append(more, subscriberdb.Group{Name: p.config.Name, Inside: p.inside})
		}
	}
	return more
}

// serveLocallyLocked adds the group of a plan, or extends the present one.
func (sg *servedGroups) serveLocallyLocked(p *plan) {
	if !p.drains {
		return
	}
	name := p.config.Name
	sg.unadopted[name] = p.config
	g := sg.groups[name]
	if g == nil {
		g = sg.addGroupLocked(p.config, p.retired.Guard)
	}
	g.Inside = slices.Clone(p.config.Inside)
	sg.log.Warn("the configuration lacks what customers use; it is served to its end and gives nothing new",
		"group", name, "whole_group", p.retired != nil, "inside", p.inside, "outside", p.config.AllOutside())
}

// planAll plans every group.
func (sg *servedGroups) planAll(ctx context.Context) ([]plan, error) {
	file := sg.configured()
	names := make([]string, len(file))
	for i := range file {
		names[i] = file[i].Name
		if err := sg.leases.Claim(ctx, names[i]); err != nil {
			return nil, err
		}
		if err := sg.readPools(ctx, names[i]); err != nil {
			return nil, err
		}
	}
	configs := sg.combine(file)
	sg.mu.Lock()
	sg.configs = configs
	sg.mu.Unlock()
	list, err := sg.store.Served(ctx, names)
	if err != nil {
		return nil, err
	}
	stored := make(map[string]*subscriberdb.Served, len(list))
	for i := range list {
		stored[list[i].Group] = &list[i]
	}
	var plans []plan
	for _, c := range configs {
		p, err := sg.planConfigured(ctx, c, configs, stored[c.Name])
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
		delete(stored, c.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		p, err := sg.planRetired(ctx, stored[name], configs)
		if err != nil {
			return nil, err
		}
		if p.drains {
			plans = append(plans, p)
		}
	}
	return plans, nil
}

// planConfigured plans a configured group. It reads the stored bindings only if
// some may lie outside the configuration.
func (sg *servedGroups) planConfigured(ctx context.Context, c lsn.GroupConfig, all []lsn.GroupConfig, s *subscriberdb.Served) (plan, error) {
	p := plan{config: c}
	if sg.discard || s != nil && servedBy(&c, s) {
		return p, nil
	}
	if s == nil {
		s = &subscriberdb.Served{} // served by a version that stored no Served
	}
	rows, err := sg.rowsInUse(ctx, c.Name)
	if err != nil {
		return p, err
	}
	for i := range rows {
		if !fits(&rows[i], &c) {
			return p, fmt.Errorf("%w: group %s: %w: %s has the ports %s of %s, so port_range and block_size cannot change now; %s",
				errRefused, c.Name, lsn.ErrInUse, rows[i].Inside, rows[i].Ports(), rows[i].Outside, refusalHint)
		}
	}
	return p, p.extend(rows, s, all)
}

// planRetired plans a group that is no longer configured, and forgets it if no
// binding is left.
func (sg *servedGroups) planRetired(ctx context.Context, s *subscriberdb.Served, all []lsn.GroupConfig) (p plan, err error) {
	if s.By != sg.by {
		sg.log.Info("a group in the database is not this daemon's", "group", s.Group, "served_by", s.By)
		return p, nil
	}
	var rows []nat.Binding
	if !sg.discard {
		if rows, err = sg.rowsInUse(ctx, s.Group); err != nil {
			return p, err
		}
	}
	if len(rows) == 0 {
		sg.log.Info("a group that is not configured is forgotten", "group", s.Group, "discarded", sg.discard)
		return p, sg.store.ForgetServed(ctx, s.Group)
	}
	if err := sg.leases.Claim(ctx, s.Group); err != nil {
		return p, err
	}
	if err := sg.readPools(ctx, s.Group); err != nil { // of those that are being cut
		return p, err
	}
	p.retired = s
	p.config = lsn.GroupConfig{
		Name: s.Group, FirstPort: nat.Port(s.FirstPort), LastPort: nat.Port(s.LastPort), BlockSize: s.BlockSize,
		Hold: s.Hold, Grace: s.Grace, GraceCauses: s.GraceCauses, MaxBlocks: s.MaxBlocks,
	}
	setTerms(&p.config, &s.Terms)
	return p, p.extend(rows, s, all)
}

// servedBy reports whether the configuration covers everything that a group was
// served with.
func servedBy(c *lsn.GroupConfig, s *subscriberdb.Served) bool {
	lacks := func(has []netip.Prefix) func(netip.Prefix) bool {
		return func(p netip.Prefix) bool { return len(lsn.Subtract(p, has)) > 0 }
	}
	return c.FirstPort == nat.Port(s.FirstPort) && c.LastPort == nat.Port(s.LastPort) && c.BlockSize == s.BlockSize &&
		!slices.ContainsFunc(s.Inside, lacks(c.Inside)) && !slices.ContainsFunc(s.Outside, lacks(c.AllOutside()))
}

// rowsInUse returns the stored bindings that are live or in their hold.
func (sg *servedGroups) rowsInUse(ctx context.Context, group string) ([]nat.Binding, error) {
	var used []nat.Binding
	err := sg.store.BindingRows(ctx, group, func(rows []subscriberdb.BindingRow) error {
		for i := range rows {
			if b, ok := rows[i].Binding(); ok && (b.State != nat.Held || b.HoldUntil.After(sg.now())) {
				used = append(used, b)
			}
		}
		return nil
	})
	return used, err
}

// fits reports whether the ports of a stored binding are blocks of the group.
func fits(b *nat.Binding, c *lsn.GroupConfig) bool {
	for x := range b.All() {
		if x.First < c.FirstPort || x.Last > c.LastPort || int(x.Last)-int(x.First)+1 != c.BlockSize || int(x.First)%c.BlockSize != 0 {
			return false
		}
	}
	return true
}

// extend adds to the plan the prefixes that bindings need and the configuration
// lacks: the former prefixes if known, else ones around the addresses. An
// address of a binding must not be in another group now: a slot has one group,
// and a port one owner (I1).
func (p *plan) extend(rows []nat.Binding, s *subscriberdb.Served, all []lsn.GroupConfig) error {
	var inside, outside []netip.Addr
	for i := range rows {
		if err := p.contradicts(&rows[i], all); err != nil {
			return err
		}
		outside = append(outside, rows[i].Outside)
		if rows[i].State != nat.Held {
			inside = append(inside, rows[i].Inside)
		}
	}
	allInside, allOutside := prefixesOf(all)
	var lone []netip.Addr
	p.inside, lone = lacking(inside, s.Inside, allInside)
	p.inside = append(p.inside, neighbourhoods(lone, slices.Concat(allInside, allOutside))...)
	more, lone := lacking(outside, s.Outside, allOutside)
	more = append(more, aggregate(lone)...)
	p.config.Inside = slices.Concat(p.config.Inside, p.inside)
	p.config.Outside = slices.Concat(p.config.Outside, more)
	p.drains = len(p.inside)+len(more) > 0 || p.retired != nil
	return nil
}

// contradicts returns an error if another group is configured with an address
// of the binding.
func (p *plan) contradicts(b *nat.Binding, all []lsn.GroupConfig) error {
	why := fmt.Sprintf("in use by %s (%s) in group %s", b.Inside, b.UserName, p.config.Name)
	if b.State == nat.Held {
		why = fmt.Sprintf("kept by group %s until the hold of %s ends at %s", p.config.Name, b.Inside, b.HoldUntil.UTC().Format(time.RFC3339))
	}
	for _, c := range all {
		switch {
		case c.Name == p.config.Name:
		case b.State != nat.Held && contains(c.Inside, b.Inside):
			return fmt.Errorf("%w: group %s: inside address %s: %w: %s; %s", errRefused, c.Name, b.Inside, lsn.ErrInUse, why, refusalHint)
		case contains(c.AllOutside(), b.Outside):
			return fmt.Errorf("%w: group %s: outside address %s: %w: %s; %s", errRefused, c.Name, b.Outside, lsn.ErrInUse, why, refusalHint)
		}
	}
	return nil
}

// lacking returns the prefixes that cover those addresses that the configured
// ones do not. They are the rest of the known prefixes, so that operators
// recognize their former configuration. It also returns the addresses in
// neither.
func lacking(addresses []netip.Addr, known, configured []netip.Prefix) (needed []netip.Prefix, lone []netip.Addr) {
	rest := lessThan(known, configured)
	used := make([]bool, len(rest))
	for _, a := range addresses {
		if contains(configured, a) {
			continue
		}
		if i := holding(rest, a); i >= 0 {
			used[i] = true
		} else {
			lone = append(lone, a)
		}
	}
	for i, p := range rest {
		if used[i] {
			needed = append(needed, p)
		}
	}
	return needed, lone
}

// neighbourhoods returns, for inside addresses without a known prefix, the /24
// around each, without the configured prefixes. The former prefix was hardly
// smaller, and the kernel's prefix set has no elements of single addresses.
func neighbourhoods(addresses []netip.Addr, configured []netip.Prefix) []netip.Prefix {
	var around []netip.Prefix
	for _, a := range addresses {
		if p := netip.PrefixFrom(a, 24).Masked(); !slices.Contains(around, p) {
			around = append(around, p)
		}
	}
	return lessThan(around, configured)
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool { return holding(prefixes, a) >= 0 }

// aggregate returns the fewest prefixes that cover exactly the addresses.
func aggregate(addresses []netip.Addr) []netip.Prefix {
	slices.SortFunc(addresses, netip.Addr.Compare)
	var list []netip.Prefix
	for _, a := range slices.Compact(addresses) {
		list = append(list, netip.PrefixFrom(a, a.BitLen()))
		for len(list) > 1 {
			low, high := list[len(list)-2], list[len(list)-1]
			both := netip.PrefixFrom(low.Addr(), max(low.Bits()-1, 0)).Masked()
			if low.Bits() != high.Bits() || both.Addr() != low.Addr() || !both.Contains(high.Addr()) {
				break
			}
			list = append(list[:len(list)-2], both)
		}
	}
	return list
}

// RetireLocked makes the engine free the unused rest of a group's drained
// prefixes, now that its bindings are in the engine.
func (sg *servedGroups) RetireLocked(name string) error {
	if _, ok := sg.unadopted[name]; !ok {
		return nil
	}
	if err := sg.life.Engine().Reconfigure(sg.asServedLocked(name)); err != nil {
		return err
	}
	delete(sg.unadopted, name)
	return nil
}

// RebuiltLocked forgets that the group's Served is stored, and tells watchers, because the
// database lost its data.
func (sg *servedGroups) RebuiltLocked(name string) {
	if g := sg.groups[name]; g != nil {
		g.stored, g.pools = nil, nil
		sg.natLog.ask(name)
		sg.lost(name)
	}
}

// asServedLocked returns the configuration, with the drains of groups whose
// bindings are not adopted yet, except one group.
func (sg *servedGroups) asServedLocked(but string) []lsn.GroupConfig {
	configs := slices.Clone(sg.configs)
	for name, full := range sg.unadopted {
		if name == but {
			continue
		}
		if i := slices.IndexFunc(configs, func(c lsn.GroupConfig) bool { return c.Name == name }); i >= 0 {
			configs[i] = full
		} else {
			configs = append(configs, full)
		}
	}
	return configs
}
