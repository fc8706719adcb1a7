package main

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/pcp"
)

// pcpService is the server of PCP. It is opened with the first group that has it: until then
// nothing listens. A reload that takes PCP from all groups leaves it open, and it refuses
// all requests then.
type pcpService struct {
	options pcp.Options
	opened  chan *pcp.Server // gets the server when it is opened
	server  atomic.Pointer[pcp.Server]
}

// openPCP opens the server if a group has PCP, and sets the rules of all groups.
func (d *daemon) openPCP(context.Context) error {
	var groups []string
	for _, g := range d.config.Groups {
		groups = append(groups, g.Name)
	}
	d.pcp = &pcpService{opened: make(chan *pcp.Server, 1), options: pcp.Options{
		Mappings: d.manager.PCP(), NetNS: d.config.NAT.NetNS,
		InsideInterfaces: d.config.NAT.InsideInterfaces, OutsideInterfaces: d.config.NAT.OutsideInterfaces,
		Listen: d.config.PCP.Listen, Anycast: d.config.PCP.Anycast, Logger: d.log,
		Observer: metrics.NewPCP(d.metrics, metrics.PCPLabels{Opcodes: pcp.Opcodes(), Results: pcp.Outcomes(), Announcements: pcp.Announcements(), Groups: groups}),
	}}
	d.manager.SetPCP(pcpRules(d.config.Groups), d.pcp.lost)
	return d.needPCP(d.config.Groups)
}

// needPCP opens the server, unless it is open already or no group has PCP.
func (d *daemon) needPCP(groups []config.Group) error {
	enabled := slices.ContainsFunc(groups, func(g config.Group) bool { return g.PCP.Enabled })
	switch {
	case !enabled || d.pcp.server.Load() != nil:
		return nil
	case d.config.NAT.Backend == backendMemory:
		d.log.Warn("nat.backend is memory: no subscriber can ask for mappings")
		return nil
	}
	s, err := pcp.New(d.pcp.options)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, s)
	d.pcp.server.Store(s)
	d.pcp.opened <- s
	d.logListening("pcp", "UDP port 5351")
	return nil
}

// run answers requests, once the server is open and all mappings are restored.
func (p *pcpService) run(ctx context.Context, restored <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case s := <-p.opened:
		select {
		case <-ctx.Done():
			return nil
		case <-restored:
			return s.Run(ctx)
		}
	}
}

// lost has a client told that its mappings were lost.
func (p *pcpService) lost(inside netip.Addr) {
	if s := p.server.Load(); s != nil {
		s.MappingsLost(inside)
	}
}

// pcpRules converts the rules of groups, by name.
func pcpRules(groups []config.Group) map[string]*pcp.GroupSettings {
	rules := make(map[string]*pcp.GroupSettings, len(groups))
	for _, g := range groups {
		p := &g.PCP
		rules[g.Name] = &pcp.GroupSettings{
			Enabled: p.Enabled, NATPMP: p.NATPMP, Map: p.Map, Peer: p.Peer, ThirdParty: p.ThirdParty, LenientNonce: p.Nonce == config.NonceLenient,
			MinLifetime: p.MinLifetime, MaxLifetime: p.MaxLifetime, Mappings: p.Mappings, Announce: p.Announce,
		}
	}
	return rules
}
