package config

import (
	"net/netip"
	"slices"
	"time"
)

// PCP is the server at which subscribers ask for mappings (RFC 6887), and its relative NAT-PMP
// (RFC 6886).
type PCP struct {
	Listen  []netip.Addr // IPv4, besides the inside interfaces' own addresses
	Anycast bool         // answer at 192.0.0.9 too (RFC 7723)
}

// GroupPCP are the rules of the mappings that the subscribers of a group ask for.
type GroupPCP struct {
	Enabled     bool
	NATPMP      bool // NAT-PMP is spoken too
	Map, Peer   bool // the requests of these names are answered
	ThirdParty  []netip.Prefix
	Nonce       string        // NonceStrict or NonceLenient
	MinLifetime time.Duration // of a mapping
	MaxLifetime time.Duration // of a mapping; not below MinLifetime
	Mappings    int           // of one subscriber
	Announce    int           // times that a client is told of one loss of its mappings; 0 for none
}

// Who may renew and delete a mapping: its nonce alone (RFC 6887 section 11.3), or any.
const (
	NonceStrict  = "strict"
	NonceLenient = "lenient"
)

// Bounds of a mapping's lifetime: shorter ones are a load (RFC 6887 section 15 recommends 120 s at
// least), longer ones a port that nobody may use (there: 24 h at most).
const (
	leastLifetime = time.Second
	mostLifetime  = 24 * time.Hour
)

// mostAsked bounds the mappings of one subscriber by PCP, and mostAnnounced the announcements to
// one client, the last one of which would come 2 minutes after the loss (RFC 6887 section 14.1.1).
const mostAsked, mostAnnounced = 1024, 10

func defaultGroupPCP() GroupPCP {
	return GroupPCP{Map: true, Peer: true, Nonce: NonceStrict, MinLifetime: 120 * time.Second, MaxLifetime: mostLifetime, Mappings: 16, Announce: 10}
}

// pcp reads the addresses of the server.
func (l *loader) pcp(v value) {
	c := &l.config.PCP
	v.mapping(fields{
		"listen": func(v value) {
			for _, e := range v.list() {
				var a netip.Addr
				readAddress(e, &a)
				switch {
				case !a.IsValid():
				case a.IsUnspecified() || a.IsMulticast():
					e.errorf("%v is no address that a client can ask; write the addresses one by one, such as 192.0.2.1", a)
				case slices.Contains(c.Listen, a):
					e.errorf("%v is there twice; keep one", a)
				default:
					c.Listen = append(c.Listen, a)
				}
			}
		},
		"anycast": func(v value) { v.boolean(&c.Anycast) },
	})
}

// readGroupPCP reads the rules of a group.
func readGroupPCP(v value, g *GroupPCP) {
	most := v
	v.mapping(fields{
		"enabled":     func(v value) { v.boolean(&g.Enabled) },
		"nat_pmp":     func(v value) { v.boolean(&g.NATPMP) },
		"map":         func(v value) { v.boolean(&g.Map) },
		"peer":        func(v value) { v.boolean(&g.Peer) },
		"third_party": func(v value) { g.ThirdParty = readHosts(v) },
		"nonce":       func(v value) { v.oneOf(&g.Nonce, NonceStrict, NonceLenient) },
		"min_lifetime": func(v value) {
			if v.duration(&g.MinLifetime, leastLifetime) && v.maximum(g.MinLifetime, mostLifetime) {
				v.minimum(g.MinLifetime, 120*time.Second, "RFC 6887 section 15")
			}
		},
		"max_lifetime": func(v value) {
			most = v
			_ = v.duration(&g.MaxLifetime, leastLifetime) && v.maximum(g.MaxLifetime, mostLifetime)
		},
		"mappings": func(v value) { v.upTo(&g.Mappings, mostAsked) },
		"announce": func(v value) { v.upTo(&g.Announce, mostAnnounced) },
	})
	if g.MaxLifetime < g.MinLifetime {
		most.errorf("%v is shorter than min_lifetime, %v; write at least that", g.MaxLifetime, g.MinLifetime)
	}
}

// readHosts reads a list of IPv4 prefixes, which may be empty.
func readHosts(v value) (list []netip.Prefix) {
	for _, e := range v.list() {
		switch p, ok := e.prefix(); {
		case !ok:
		case !p.Addr().Is4():
			e.errorf("%v is not IPv4; write an IPv4 prefix", p)
		default:
			list = append(list, p)
		}
	}
	return list
}

// firstAsked is the first port that a subscriber gets by PCP: well-known ones are a person's to
// give.
const firstAsked = 1024

// checkGroupPCP checks that there are ports for mappings. place is that of pcp.
func checkGroupPCP(g *Group, place value) {
	switch {
	case !g.PCP.Enabled:
	case g.Static.First == 0:
		place.errorf("the group has no ports for mappings; write static_ports, such as 60000-65535, and a port_range that ends before it, or take enabled out")
	case g.Static.Last < firstAsked:
		place.errorf("static_ports, %d-%d, are all well-known, which nobody gets by PCP; write higher ones, such as 60000-65535, and a port_range that ends before it", g.Static.First, g.Static.Last)
	}
}

// checkPCP warns of a server for nobody, and of groups whose clients do not reach it.
func (l *loader) checkPCP() {
	served := slices.ContainsFunc(l.config.Groups, func(g Group) bool { return g.PCP.Enabled })
	if len(l.config.PCP.Listen) > 0 && !served {
		l.pcpValue.warnf("no group has pcp.enabled: nothing listens; write it into a group, or take listen out")
	}
}
