package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

const (
	// serveEvery is the interval at which the served configuration is compared
	// with the one stored in the database.
	serveEvery = time.Second
	// fullyEvery is the number of such rounds between full ones. A full round
	// walks over all slots to find drained inside prefixes without subscribers,
	// and writes the key in any case.
	fullyEvery = 10
)

// run stores the served configuration with its drains, and forgets drains that
// are over.
func (sg *servedGroups) run(ctx context.Context) error {
	tick := time.NewTicker(serveEvery)
	defer tick.Stop()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		sg.keepPools(ctx)
		if err := sg.keepStatic(ctx); err != nil && ctx.Err() == nil {
			sg.log.Debug("ports that no group sets apart any more are still in the kernel", "error", err)
		}
		if round%int(formulaEvery/serveEvery) == 0 {
			sg.tellFormulas(sg.configured())
		}
		for _, g := range sg.syncedGroups() {
			if err := sg.keep(ctx, g, round%fullyEvery == 0); err != nil && ctx.Err() == nil {
				sg.log.Debug("what is served is not in the database yet", "group", g.Name, "error", err)
			}
		}
	}
}

// keep stores the group's Served if it changed. A full look stores it also
// without a change, because others may have deleted it. A group that is not
// configured and has no binding left is forgotten.
func (sg *servedGroups) keep(ctx context.Context, g *group, fully bool) error {
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	if fully {
		sg.lookAtDrainedInside(g)
	}
	sg.mu.RLock()
	now, over := sg.servedRLocked(g)
	stands := !fully && g.stored != nil && reflect.DeepEqual(*g.stored, now)
	sg.mu.RUnlock()
	switch {
	case over:
		return sg.forgetGroup(ctx, g)
	case stands:
		return nil
	}
	if err := sg.leases.Check(ctx, g.Name); err != nil {
		return err
	}
	if err := sg.store.SaveServed(ctx, now); err != nil {
		return err
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	g.stored = &now
	return nil
}

// servedRLocked returns the group's present Served, and whether the group is
// over: not configured, and without outside prefixes.
func (sg *servedGroups) servedRLocked(g *group) (s subscriberdb.Served, over bool) {
	c, configured := sg.configuredRLocked(g.Name)
	if !configured {
		c = g.Config
		c.Inside, c.Outside, c.Draining = nil, nil, nil
	}
	var outside []netip.Prefix
	if full, ok := sg.unadopted[g.Name]; ok {
		outside = lessThan(full.AllOutside(), c.AllOutside())
	} else {
		for _, u := range sg.life.Engine().Usage() {
			if u.Group == g.Name && u.Former {
				outside = append(outside, u.Outside)
			}
		}
	}
	inside := lessThan(g.Inside, c.Inside)
	return subscriberdb.Served{
		Group: g.Name, By: sg.by,
		Inside: slices.Concat(c.Inside, inside), Outside: slices.Concat(c.AllOutside(), outside),
		Draining:  slices.Concat(inside, c.Draining, outside),
		FirstPort: uint16(c.FirstPort), LastPort: uint16(c.LastPort), BlockSize: c.BlockSize,
		Hold: c.Hold, Grace: c.Grace, GraceCauses: c.GraceCauses, MaxBlocks: c.MaxBlocks, Terms: storedTerms(&c),
	}, !configured && len(outside) == 0
}

func (sg *servedGroups) configuredRLocked(name string) (lsn.GroupConfig, bool) {
	if i := slices.IndexFunc(sg.configs, func(c lsn.GroupConfig) bool { return c.Name == name }); i >= 0 {
		return sg.configs[i], true
	}
	return lsn.GroupConfig{}, false
}

// lessThan returns the parts of prefixes that the configured ones do not cover.
func lessThan(prefixes, configured []netip.Prefix) []netip.Prefix {
	var rest []netip.Prefix
	for _, p := range prefixes {
		rest = append(rest, lsn.Subtract(p, configured)...)
	}
	return rest
}

// lookAtDrainedInside forgets the drained inside prefixes of a configured group
// in which there is no online subscriber and no binding. The addresses stay
// with the group in the store and the kernel until the next start.
func (sg *servedGroups) lookAtDrainedInside(g *group) {
	sg.mu.RLock()
	c, configured := sg.configuredRLocked(g.Name)
	drained := lessThan(g.Inside, c.Inside)
	used := make([]bool, len(drained))
	if configured && len(drained) > 0 {
		for inside, s := range walk.All(sg.mu.RLocker(), sg.life.Slots().All()) {
			if i := holding(drained, inside); i >= 0 && s.Group() == g.Name {
				used[i] = true
			}
		}
	}
	sg.mu.RUnlock()
	if !configured || !slices.Contains(used, false) {
		return
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	g.Inside = slices.Clone(c.Inside)
	for i, p := range drained {
		if used[i] {
			g.Inside = append(g.Inside, p)
		}
	}
}

// holding returns the index of the prefix that contains the address, or -1.
func holding(prefixes []netip.Prefix, a netip.Addr) int {
	return slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// forgetGroup ends the service of a group that is not configured and has no
// binding left: first in the database, so that no start serves it, and then
// here. After that another node may serve it. Its online subscribers have no
// NAT, and get none.
func (sg *servedGroups) forgetGroup(ctx context.Context, g *group) error {
	sg.reconciling.Lock()
	defer sg.reconciling.Unlock()
	sg.mu.RLock()
	rests := sg.restsRLocked(g)
	sg.mu.RUnlock()
	if !rests {
		return nil
	}
	if err := sg.store.ForgetServed(ctx, g.Name); err != nil {
		return err
	}
	sg.mu.Lock()
	sg.life.ForgetGroup(g.Name)
	delete(sg.groups, g.Name)
	delete(sg.changes, g.Name)
	g.cancel()
	sg.mu.Unlock()
	sg.log.Info("a drained group is empty and forgotten", "group", g.Name)
	if err := sg.store.Unserve(g.Name); err != nil {
		return err
	}
	return sg.leases.Leave(ctx, g.Name)
}

// restsRLocked reports whether no work is under way in a group without
// bindings.
func (sg *servedGroups) restsRLocked(g *group) bool {
	for _, s := range sg.life.Slots().All() {
		if s.Group() == g.Name && (s.Busy() || s.Phase() != lifecycle.Idle) {
			return false
		}
	}
	return !sg.life.Writes().In(func(outside netip.Addr) bool { return contains(g.Config.AllOutside(), outside) })
}

// A changed configuration.

// set applies a changed configuration without touching a session: new groups
// and prefixes are served, removed ones keep their bindings and allocate no
// more. It refuses to move an inside address that is in use to another group,
// because its record and its block would stay behind.
func (sg *servedGroups) set(ctx context.Context, file []lsn.GroupConfig) error {
	sg.awaitAdopted(ctx)
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	if err := sg.mayRegroup(); err != nil {
		return err
	}
	plans, taken, err := sg.planNew(ctx, file)
	if err == nil {
		err = sg.regroup(ctx, file, plans)
	}
	if err != nil {
		return errors.Join(err, sg.leases.leaveAll(ctx, taken))
	}
	return nil
}

// adoptWithin bounds the wait of a reload for groups that an earlier one added.
const adoptWithin = 5 * time.Second

// awaitAdopted waits, for a bounded time, until mayRegroup allows a reload.
func (sg *servedGroups) awaitAdopted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, adoptWithin)
	defer cancel()
	for sg.mayRegroup() != nil && clock.Sleep(ctx, 10*time.Millisecond) == nil {
	}
}

// mayRegroup returns an error unless all bindings are known and no other daemon
// has taken a group.
func (sg *servedGroups) mayRegroup() error {
	if err := sg.leases.taken(); err != nil {
		return err
	}
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	known := sg.prepared
	for _, g := range sg.groups {
		known = known && g.Adopted()
	}
	if !known {
		return errors.New("the bindings of all groups are not known yet, reload again when sessiond is ready")
	}
	return nil
}

// planNew takes the leases of groups that are not served yet, as a start does,
// and plans them. It also returns the groups whose leases it took.
func (sg *servedGroups) planNew(ctx context.Context, file []lsn.GroupConfig) (plans []plan, taken []string, err error) {
	sg.mu.RLock()
	fresh := slices.DeleteFunc(slices.Clone(file), func(c lsn.GroupConfig) bool { return sg.groups[c.Name] != nil })
	sg.mu.RUnlock()
	for i := range fresh {
		if err := sg.leases.Claim(ctx, fresh[i].Name); err != nil {
			return nil, taken, err
		}
		taken = append(taken, fresh[i].Name)
		if err := sg.readPools(ctx, fresh[i].Name); err != nil {
			return nil, taken, err
		}
	}
	configs := sg.combine(file)
	for _, name := range taken {
		c := configs[slices.IndexFunc(configs, func(c lsn.GroupConfig) bool { return c.Name == name })]
		stored, err := sg.store.Served(ctx, []string{c.Name})
		if err != nil {
			return nil, taken, err
		}
		p, err := sg.planConfigured(ctx, c, configs, servedAs(stored, c.Name))
		if err != nil {
			return nil, taken, err
		}
		plans = append(plans, p)
	}
	return plans, taken, nil
}

// servedAs returns the group's stored Served, nil if there is none.
func servedAs(stored []subscriberdb.Served, group string) *subscriberdb.Served {
	for i := range stored {
		if stored[i].Group == group {
			return &stored[i]
		}
	}
	return nil
}

// regroup changes engine and kernel to a configuration with the changes of pools at run
// time, and follows the feeds of new groups.
func (sg *servedGroups) regroup(ctx context.Context, file []lsn.GroupConfig, plans []plan) error {
	configs := sg.combine(file)
	sg.mappings.changing.Lock()
	defer sg.mappings.changing.Unlock()
	sg.mu.Lock()
	before := sg.configs
	if err := sg.mayMapRLocked(configs); err != nil {
		sg.mu.Unlock()
		return err
	}
	if err := sg.staysLocked(configs); err != nil {
		sg.mu.Unlock()
		return err
	}
	full := withDrains(configs, plans)
	if err := sg.life.Engine().Reconfigure(full); err != nil {
		sg.mu.Unlock()
		return err
	}
	former, terms := sg.terms, sg.termsRLocked(full)
	terms.Inside, terms.Outside = sg.prefixesLocked(full)
	terms.Static = widened(former.Static, terms.Static) // keepStatic takes out the rest of the former ones
	sg.mu.Unlock()
	err := terms.program(ctx, sg.kernel)
	if err != nil {
		err = errors.Join(err, former.program(ctx, sg.kernel))
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	if err != nil {
		return errors.Join(err, sg.life.Engine().Reconfigure(before))
	}
	sg.tellChangedLocked(sg.configs, configs)
	sg.file, sg.configs, sg.terms = file, configs, terms
	for _, g := range sg.groups {
		g.stored = nil // the store's additions to it may have changed too
	}
	defer signal(sg.timers.wake) // a grown pool serves pending subscribers
	for _, c := range configs {
		if g := sg.groups[c.Name]; g != nil {
			g.Config = c
			sg.mapLocked(g)
			continue
		}
		sg.addGroupLocked(c, sg.guards[c.Name])
	}
	sg.serveLocked(configs)
	for i := range plans {
		sg.serveLocallyLocked(&plans[i])
		sg.follow(sg.groups[plans[i].config.Name])
	}
	return nil
}

// keepStatic takes ports out of the kernel that no group sets apart any more, once no executor
// works for a slot: its entry might have mappings of them.
func (sg *servedGroups) keepStatic(ctx context.Context) error {
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	sg.mu.RLock()
	configs := slices.Clone(sg.configs)
	for name, g := range sg.groups {
		if _, configured := sg.configuredRLocked(name); !configured {
			configs = append(configs, g.Config)
		}
	}
	wanted, busy := staticOf(configs), sg.life.Busy() > 0
	same := reflect.DeepEqual(wanted, sg.terms.Static)
	sg.mu.RUnlock()
	if same || busy {
		return nil
	}
	if err := sg.kernel.SetStatic(ctx, wanted); err != nil {
		return err
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	sg.terms.Static = wanted
	return nil
}

// setGuards changes the limits of the named groups.
func (sg *servedGroups) setGuards(limits map[string]guard.Limits) {
	sg.mu.Lock()
	defer sg.mu.Unlock()
	sg.guards = maps.Clone(limits)
	for name, l := range limits {
		if g := sg.groups[name]; g != nil {
			g.Guard.SetLimits(l)
		}
	}
}

// configured returns the configuration in force, without changes at run time.
func (sg *servedGroups) configured() []lsn.GroupConfig {
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	return sg.file
}

// withDrains returns the configuration, with the drains of its new groups.
func withDrains(configs []lsn.GroupConfig, plans []plan) []lsn.GroupConfig {
	full := slices.Clone(configs)
	for i := range full {
		for j := range plans {
			if plans[j].config.Name == full[i].Name {
				full[i] = plans[j].config
			}
		}
	}
	return full
}

// staysLocked returns an error if an address in use would move to another
// group.
func (sg *servedGroups) staysLocked(configs []lsn.GroupConfig) error {
	for inside, s := range sg.life.Slots().All() {
		for _, c := range configs {
			if c.Name != s.Group() && coveredBy(c.Inside, netip.PrefixFrom(inside, 32)) {
				return fmt.Errorf("group %s: inside address %s is in use in group %s, end its session first: %w",
					c.Name, inside, s.Group(), lsn.ErrInUse)
			}
		}
	}
	return nil
}

// serveLocked sets the inside prefixes of each group. Removed prefixes stay
// with their group, so that their sessions can end, but for the parts that
// another group has now.
func (sg *servedGroups) serveLocked(configs []lsn.GroupConfig) {
	var inside []netip.Prefix
	for _, c := range configs {
		inside = append(inside, c.Inside...)
	}
	for _, g := range sg.groups {
		g.Inside = lessThan(g.Inside, inside)
	}
	for _, c := range configs {
		g := sg.groups[c.Name]
		g.Inside = append(g.Inside, c.Inside...)
	}
}

// insidePrefixes returns the inside prefixes of every served group, including
// those removed from the configuration.
func (sg *servedGroups) insidePrefixes() map[string][]netip.Prefix {
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	prefixes := make(map[string][]netip.Prefix, len(sg.groups))
	for name, g := range sg.groups {
		prefixes[name] = slices.Clone(g.Inside)
	}
	return prefixes
}

// prefixesLocked returns the prefixes of the new groups and of those in force.
// Bindings of a removed pool go on until they end: keepPools takes its prefix out
// of the kernel then. Inside prefixes stay until the next start.
func (sg *servedGroups) prefixesLocked(configs []lsn.GroupConfig) (inside, outside []netip.Prefix) {
	inside, outside = slices.Clone(sg.terms.Inside), slices.Clone(sg.terms.Outside)
	for _, g := range sg.groups {
		configs = append(slices.Clip(configs), g.Config)
	}
	for _, c := range configs {
		inside = merge(inside, c.Inside)
		outside = merge(outside, c.AllOutside())
	}
	return inside, outside
}

// merge adds prefixes to a list in which none covers another.
func merge(list, more []netip.Prefix) []netip.Prefix {
	for _, p := range more {
		if coveredBy(list, p) {
			continue
		}
		list = append(slices.DeleteFunc(list, func(q netip.Prefix) bool { return covers(p, q) }), p)
	}
	return list
}

func covers(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }

func coveredBy(list []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(list, func(q netip.Prefix) bool { return covers(q, p) })
}
