package session

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// The configuration is the base, and changes at run time lie over it: prefixes that were
// added, and, over these and those of the configuration, others that drain or were
// removed. What the configuration says as well, or has no prefix for, is pruned: so the
// file wins when it has the same prefix later.

// poolChanges are the changes of one group's outside prefixes at run time, in the order of
// prefixes. Those of kind PoolAdded do not overlap each other, and the others neither.
type poolChanges []subscriberdb.PoolChange

// of returns the prefixes of the changes of some kinds.
func (pc poolChanges) of(kinds ...subscriberdb.PoolKind) []netip.Prefix {
	var list []netip.Prefix
	for _, c := range pc {
		if slices.Contains(kinds, c.Kind) {
			list = append(list, c.Prefix)
		}
	}
	return list
}

func (pc poolChanges) added() []netip.Prefix { return pc.of(subscriberdb.PoolAdded) }

func (pc poolChanges) draining() []netip.Prefix { return pc.of(subscriberdb.PoolDraining) }

// removed returns the prefixes that are the group's no more, cut ones included.
func (pc poolChanges) removed() []netip.Prefix {
	return pc.of(subscriberdb.PoolRemoved, subscriberdb.PoolCut)
}

// without returns the changes without the parts that lie in p: the added ones, or the
// others.
func (pc poolChanges) without(p netip.Prefix, added bool) poolChanges {
	var rest poolChanges
	for _, c := range pc {
		if (c.Kind == subscriberdb.PoolAdded) != added {
			rest = append(rest, c)
			continue
		}
		for _, part := range lsn.Subtract(c.Prefix, []netip.Prefix{p}) {
			rest = append(rest, subscriberdb.PoolChange{Prefix: part, Kind: c.Kind, At: c.At})
		}
	}
	return rest.inOrder()
}

// with returns the changes with another one, in place of those like it that overlap it.
func (pc poolChanges) with(c subscriberdb.PoolChange) poolChanges {
	return append(pc.without(c.Prefix, c.Kind == subscriberdb.PoolAdded), c).inOrder()
}

func (pc poolChanges) inOrder() poolChanges {
	slices.SortFunc(pc, func(a, b subscriberdb.PoolChange) int {
		if order := a.Prefix.Compare(b.Prefix); order != 0 {
			return order
		}
		return strings.Compare(string(a.Kind), string(b.Kind))
	})
	return pc
}

// common returns the parts of prefixes that lie in others.
func common(prefixes, others []netip.Prefix) []netip.Prefix {
	var parts []netip.Prefix
	for _, p := range prefixes {
		for _, q := range others {
			switch {
			case covers(q, p):
				parts = append(parts, p)
			case covers(p, q):
				parts = append(parts, q)
			}
		}
	}
	return parts
}

// whole reports whether prefixes cover p together.
func whole(p netip.Prefix, prefixes []netip.Prefix) bool { return len(lsn.Subtract(p, prefixes)) == 0 }

// others returns the prefixes that a group must not have outside by a change at run time:
// all inside ones, and the outside ones of the other groups.
func others(file []lsn.GroupConfig, group string) []netip.Prefix {
	var list []netip.Prefix
	for i := range file {
		list = append(list, file[i].Inside...)
		if file[i].Name != group {
			list = append(list, file[i].AllOutside()...)
		}
	}
	return list
}

// base returns the outside prefixes of a group before any drains or is removed: those of
// the configuration, and the added ones.
func (pc poolChanges) base(file []lsn.GroupConfig, c *lsn.GroupConfig) []netip.Prefix {
	return slices.Concat(c.AllOutside(), lessThan(pc.added(), slices.Concat(c.AllOutside(), others(file, c.Name))))
}

// over returns a group's configuration with the changes over it.
func (pc poolChanges) over(file []lsn.GroupConfig, c lsn.GroupConfig) lsn.GroupConfig {
	if len(pc) == 0 || c.Deterministic {
		return c
	}
	base, gone, draining := pc.base(file, &c), pc.removed(), union(c.Draining, pc.draining())
	c.Outside = lessThan(base, slices.Concat(gone, draining))
	c.Draining = lessThan(common(base, draining), gone)
	return c
}

// combined returns the configuration with the changes at run time.
func combined(file []lsn.GroupConfig, changes map[string]poolChanges) []lsn.GroupConfig {
	configs := slices.Clone(file)
	for i := range configs {
		configs[i] = changes[configs[i].Name].over(file, configs[i])
	}
	return configs
}

// pruned returns the changes that still say something: over the configuration, or of
// removed prefixes with blocks that are in use. A deterministic group has none: its blocks
// follow from the prefixes of the configuration.
func (pc poolChanges) pruned(file []lsn.GroupConfig, c *lsn.GroupConfig, used []netip.Prefix) poolChanges {
	if c.Deterministic {
		return nil
	}
	base := pc.base(file, c)
	says := func(change subscriberdb.PoolChange) []netip.Prefix {
		all := []netip.Prefix{change.Prefix}
		switch change.Kind {
		case subscriberdb.PoolAdded:
			return lessThan(all, slices.Concat(c.AllOutside(), others(file, c.Name)))
		case subscriberdb.PoolDraining:
			return lessThan(common(all, base), c.Draining)
		}
		return union(common(all, c.AllOutside()), common(all, used))
	}
	var rest poolChanges
	for _, change := range pc {
		for _, part := range says(change) {
			rest = append(rest, subscriberdb.PoolChange{Prefix: part, Kind: change.Kind, At: change.At})
		}
	}
	return rest.inOrder()
}

// union returns disjoint prefixes that cover both lists.
func union(a, b []netip.Prefix) []netip.Prefix { return slices.Concat(a, lessThan(b, a)) }

// add returns the changes after a group was given a prefix.
func (pc poolChanges) add(file []lsn.GroupConfig, c *lsn.GroupConfig, p netip.Prefix, at time.Time) poolChanges {
	next := pc.without(p, false)
	for _, part := range lsn.Subtract(p, slices.Concat(c.AllOutside(), pc.added())) {
		next = next.with(subscriberdb.PoolChange{Prefix: part, Kind: subscriberdb.PoolAdded, At: at})
	}
	return next
}

// drain returns the changes after a prefix was made to drain.
func (pc poolChanges) drain(c *lsn.GroupConfig, p netip.Prefix, at time.Time) poolChanges {
	if whole(p, slices.Concat(c.Draining, pc.draining())) {
		return pc
	}
	return pc.with(subscriberdb.PoolChange{Prefix: p, Kind: subscriberdb.PoolDraining, At: at})
}

// remove returns the changes after a prefix was taken away.
func (pc poolChanges) remove(p netip.Prefix, cut bool, at time.Time) poolChanges {
	kind := subscriberdb.PoolRemoved
	if cut {
		kind = subscriberdb.PoolCut
	}
	return pc.without(p, true).with(subscriberdb.PoolChange{Prefix: p, Kind: kind, At: at})
}
