package session

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

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
		c.Inside, c.Outside = nil, nil
	}
	var outside []netip.Prefix
	if full, ok := sg.unadopted[g.Name]; ok {
		outside = lessThan(full.Outside, c.Outside)
	} else {
		for _, u := range sg.life.Engine().Usage() {
			if u.Group == g.Name && u.Draining {
				outside = append(outside, u.Outside)
			}
		}
	}
	inside := lessThan(g.Inside, c.Inside)
	return subscriberdb.Served{
		Group: g.Name, By: sg.by,
		Inside: slices.Concat(c.Inside, inside), Outside: slices.Concat(c.Outside, outside),
		Draining:  slices.Concat(inside, outside),
		FirstPort: uint16(c.FirstPort), LastPort: uint16(c.LastPort), BlockSize: c.BlockSize,
		Hold: c.Hold, Grace: c.Grace, GraceCauses: c.GraceCauses,
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
	return !sg.life.Writes().In(func(outside netip.Addr) bool { return contains(g.Config.Outside, outside) })
}
