package session

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// Terms are the parts of the groups' configuration that the kernel has for their addresses.
type Terms struct {
	Inside, Outside []netip.Prefix
	Mappings        nftnat.Mappings // of Outside
	Limits          []nat.PrefixLimits
	Timeouts        []nat.GroupTimeouts
	NoNAT           []nat.NoNAT
	Static          []nftnat.StaticPorts
	PCP             nftnat.PCP
}

// TermsOf returns the terms of groups. No inside prefix of one overlaps another's. mostMappings
// bounds the learned mappings of all.
func TermsOf(groups []lsn.GroupConfig, mostMappings int) Terms {
	t := Terms{Mappings: nftnat.Mappings{Most: mostMappings}, Static: staticOf(groups)}
	for i := range groups {
		t.add(&groups[i])
	}
	return t
}

// add adds a group. Outside prefixes that drain are among those with mappings: live bindings
// keep them.
func (t *Terms) add(g *lsn.GroupConfig) {
	outside, m := g.AllOutside(), &t.Mappings
	t.Inside, t.Outside = merge(t.Inside, g.Inside), merge(t.Outside, outside)
	if g.Learned.EndpointIndependent {
		m.EndpointIndependent = append(m.EndpointIndependent, outside...)
		m.Inside = append(m.Inside, g.Inside...)
	}
	m.Pinned = m.Pinned || !g.Learned.EndpointIndependent && g.MaxBlocks > 1 || lifecycle.Narrowable(g.BlockSize*max(1, g.MaxBlocks))
	if g.Learned.Open {
		m.Open = append(m.Open, outside...)
	}
	if g.Learned.Strict {
		m.Strict = append(m.Strict, outside...)
	}
	if asked := &g.Static.PCP; asked.On {
		t.PCP.On, t.PCP.ThirdParty = true, append(t.PCP.ThirdParty, asked.ThirdParty...)
	}
	t.Limits = append(t.Limits, nat.PrefixLimits{Inside: g.Inside, Limits: g.Limits})
	timeouts := g.Timeouts
	timeouts.Inside = g.Inside
	t.Timeouts = append(t.Timeouts, timeouts)
	for _, n := range g.NoNAT {
		n.Inside = g.Inside
		t.NoNAT = append(t.NoNAT, n)
	}
}

// termKernel takes the terms.
type termKernel interface {
	SetPrefixes(ctx context.Context, inside, outside []netip.Prefix, m nftnat.Mappings) error
	SetLimits(ctx context.Context, list []nat.PrefixLimits) error
	SetGroupTimeouts(ctx context.Context, groups []nat.GroupTimeouts) error
	SetNoNAT(ctx context.Context, list []nat.NoNAT) error
	SetStatic(ctx context.Context, list []nftnat.StaticPorts) error
	SetPCP(ctx context.Context, p nftnat.PCP) error
	OwnAddressIn(p netip.Prefix) (netip.Addr, error) // of the machine itself, zero for none
	Pinned() []netip.Addr                            // subscribers with pins
}

// program puts the terms in force.
func (t *Terms) program(ctx context.Context, kernel termKernel) error {
	if err := kernel.SetPrefixes(ctx, t.Inside, t.Outside, t.Mappings); err != nil {
		return err
	}
	if err := kernel.SetLimits(ctx, t.Limits); err != nil {
		return err
	}
	if err := kernel.SetGroupTimeouts(ctx, t.Timeouts); err != nil {
		return err
	}
	if err := kernel.SetNoNAT(ctx, t.NoNAT); err != nil {
		return err
	}
	if err := kernel.SetPCP(ctx, t.PCP); err != nil {
		return err
	}
	return kernel.SetStatic(ctx, t.Static)
}

// termsRLocked returns the terms of a configuration that the engine has, and of the prefixes
// that it does not cover and that are still served: these have the terms of their group, the
// last ones of a group that is not configured.
func (sg *servedGroups) termsRLocked(configs []lsn.GroupConfig) Terms {
	all := slices.Clone(configs)
	for _, name := range slices.Sorted(maps.Keys(sg.groups)) {
		if !slices.ContainsFunc(configs, func(c lsn.GroupConfig) bool { return c.Name == name }) {
			c := sg.groups[name].Config
			c.Inside, c.Outside, c.Draining = nil, nil, nil
			all = append(all, c)
		}
	}
	var inside, outside []netip.Prefix // of the groups so far
	for i := range all {
		inside, outside = slices.Concat(inside, all[i].Inside), slices.Concat(outside, all[i].AllOutside())
	}
	for i := range all {
		g, c := sg.groups[all[i].Name], &all[i]
		if g == nil {
			continue
		}
		drained, former := lessThan(g.Inside, inside), lessThan(sg.formerRLocked(g.Name), outside)
		c.Inside, c.Draining = slices.Concat(c.Inside, drained), slices.Concat(c.Draining, former)
		inside, outside = slices.Concat(inside, drained), slices.Concat(outside, former)
	}
	t := TermsOf(all, sg.mostMappings)
	t.Static = staticOf(configs)
	t.Mappings.Pinned = t.Mappings.Pinned || sg.severalRLocked()
	return t
}

// severalRLocked reports whether a subscriber whose inside ports can be pinned has several blocks,
// whatever its group allows now.
func (sg *servedGroups) severalRLocked() bool {
	for name, g := range sg.groups {
		if !g.Config.Learned.EndpointIndependent && len(sg.life.Engine().Several(name)) > 0 {
			return true
		}
	}
	return false
}

// keepPinned makes room for pins in the kernel where a start has found subscribers with several
// blocks in groups that allow one.
func (sg *servedGroups) keepPinned(ctx context.Context) error {
	sg.regrouping.Lock()
	defer sg.regrouping.Unlock()
	sg.mu.RLock()
	terms := sg.terms
	lacks := !terms.Mappings.Pinned && sg.severalRLocked()
	sg.mu.RUnlock()
	if !lacks {
		return nil
	}
	terms.Mappings.Pinned = true
	if err := sg.kernel.SetPrefixes(ctx, terms.Inside, terms.Outside, terms.Mappings); err != nil {
		return err
	}
	sg.mu.Lock()
	defer sg.mu.Unlock()
	sg.terms = terms
	return nil
}

// storedTerms returns the terms of a group that outlive its configuration.
func storedTerms(c *lsn.GroupConfig) subscriberdb.Terms {
	return subscriberdb.Terms{Limits: c.Limits, Learned: c.Learned, Timeouts: c.Timeouts, NoNAT: c.NoNAT}
}

// setTerms is the reverse of storedTerms.
func setTerms(c *lsn.GroupConfig, t *subscriberdb.Terms) {
	c.Limits, c.Learned, c.Timeouts, c.NoNAT = t.Limits, t.Learned, t.Timeouts, t.NoNAT
}
