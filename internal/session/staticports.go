package session

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// Ports of mappings in the kernel, and a changed configuration.

// staticOf returns the ports that groups set apart.
func staticOf(configs []lsn.GroupConfig) (list []nftnat.StaticPorts) {
	for i := range configs {
		if s := configs[i].Static; s.First != 0 {
			list = append(list, nftnat.StaticPorts{Outside: configs[i].AllOutside(), First: s.First, Last: s.Last})
		}
	}
	return list
}

// widened returns ports that have room for mappings of two configurations, so that none is
// without a map while one follows the other.
func widened(now, next []nftnat.StaticPorts) []nftnat.StaticPorts {
	wide := slices.Clone(next)
	for _, old := range now {
		i := slices.IndexFunc(wide, func(s nftnat.StaticPorts) bool {
			return slices.ContainsFunc(s.Outside, func(p netip.Prefix) bool { return slices.ContainsFunc(old.Outside, p.Overlaps) })
		})
		if i < 0 {
			wide = append(wide, old)
			continue
		}
		wide[i] = nftnat.StaticPorts{
			Outside: merge(slices.Clone(wide[i].Outside), old.Outside), First: min(wide[i].First, old.First), Last: max(wide[i].Last, old.Last),
		}
	}
	return wide
}

// mayMapRLocked returns an error if a mapping is in the way of a new configuration.
func (sg *servedGroups) mayMapRLocked(configs []lsn.GroupConfig) error {
	for i := range configs {
		g := sg.groups[configs[i].Name]
		if g == nil {
			continue
		}
		if err := g.Mappings.MayConfigure(lifecycle.MappingConfig(&configs[i])); err != nil {
			return fmt.Errorf("group %s: %w", g.Name, err)
		}
	}
	return nil
}

// mapLocked puts the bounds and the configured mappings of a group in force.
func (sg *servedGroups) mapLocked(g *group) {
	changed, err := g.Mappings.Configure(lifecycle.MappingConfig(&g.Config), sg.now())
	if err != nil {
		sg.log.Error("the mappings of a group stay as they are", "group", g.Name, "error", err)
		return
	}
	if changed.Unstored {
		sg.mappings.unsure[g.Name] = true
	}
	for _, m := range slices.Concat(changed.Ended, changed.Begun) {
		lifecycle.ForwardsOf(sg.life).Changed(g.Group.Group, m.Owner, sg.now())
	}
}

// mappedIn returns the number of mappings of a group in an outside prefix.
func (sg *servedGroups) mappedIn(name string, outside netip.Prefix) int {
	sg.mu.RLock()
	defer sg.mu.RUnlock()
	if g := sg.groups[name]; g != nil {
		return g.Mappings.In(outside)
	}
	return 0
}
