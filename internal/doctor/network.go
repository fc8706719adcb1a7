package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

var networkChecks = []Check{
	{"interfaces", "the interfaces that the configuration names", checkInterfaces},
	{"addresses", "addresses of the machine within pools, and networks that overlap", checkAddresses},
	{"routes", "routes to subscribers and to the internet, and of the pools", checkRoutes},
	{"barrier", "the filter on outside interfaces that stays when nftables is flushed", checkBarrier},
}

func checkInterfaces(f *Facts) (found []Finding) {
	for _, name := range slices.Concat(f.Config.Inside, f.Config.Outside) {
		if slices.ContainsFunc(f.Links, func(l Link) bool { return matches([]string{name}, l.Name) }) {
			continue
		}
		finding := Finding{
			Severity: Must, Found: "interface " + name + " does not exist" + f.Config.where(), Why: "nothing is translated there",
			Note: "ip link shows the names; correct nat.inside_interfaces, nat.outside_interfaces or nat.netns",
		}
		if strings.HasSuffix(name, "*") {
			finding.Severity, finding.Found = Should, "no interface begins as "+name+f.Config.where()
			finding.Note = "it is well until the first subscriber dials in"
		}
		found = append(found, finding)
	}
	for _, l := range f.Links {
		if f.Config.Serves(l.Name) && !l.Up {
			found = append(found, Finding{
				Severity: Must, Found: "interface " + l.Name + " is down", Why: "nothing is forwarded there",
				Command: f.Config.inNamespace("ip link set dev " + Quote(l.Name) + " up"), Note: "for the next boot, in the configuration of the network",
			})
		}
	}
	return found
}

func (c *Config) where() string {
	if c.Namespace == "" {
		return ""
	}
	return " in namespace " + c.Namespace
}

func checkAddresses(f *Facts) (found []Finding) {
	for _, l := range f.Links {
		for _, a := range l.Addresses {
			for _, g := range f.Config.Groups {
				if slices.ContainsFunc(g.Outside, func(p netip.Prefix) bool { return p.Contains(a.Addr()) }) {
					finding := Finding{
						Severity: Must, Found: fmt.Sprintf("%v on %s is an address of this machine, and of the pools of group %s", a, l.Name, g.Name),
						Why:  "packets to the machine's own ports and to those of subscribers get mixed up",
						Note: "take it out of groups[].outside; the routes by " + l.Name + " go with the address",
					}
					if a.IsSingleIP() {
						finding.Command = f.Config.inNamespace(fmt.Sprintf("ip address del %v dev %s", a, Quote(l.Name)))
						finding.Note = "not over a connection to that address; or take it out of groups[].outside"
					}
					found = append(found, finding)
				}
				if matches(f.Config.Outside, l.Name) && overlaps(g.Inside, a.Masked()) {
					found = append(found, Finding{
						Severity: Must, Found: fmt.Sprintf("the network of %v on outside interface %s overlaps the inside prefixes of group %s", a, l.Name, g.Name),
						Why:  "packets to those subscribers leave by " + l.Name,
						Note: "renumber the link, or correct groups[].inside",
					})
				}
			}
		}
	}
	return found
}

// leads reports whether a default route leads to an interface.
func (f *Facts) leads(device string) bool {
	return slices.ContainsFunc(f.Routes, func(r Route) bool { return r.To.Bits() == 0 && r.Device == device })
}

// reaches reports whether a route to a part of the inside prefixes leads to an interface.
func (f *Facts) reaches(device string) bool {
	return slices.ContainsFunc(f.Config.Groups, func(g Group) bool {
		return slices.ContainsFunc(g.Inside, func(p netip.Prefix) bool {
			return slices.ContainsFunc(f.Routes, func(r Route) bool { return r.Device == device && r.To.Bits() > 0 && r.To.Overlaps(p) })
		})
	})
}

func checkRoutes(f *Facts) (found []Finding) {
	if len(f.Config.Outside) > 0 && !slices.ContainsFunc(f.Config.Outside, f.leads) {
		finding := Finding{
			Severity: Must, Found: "no default route leads to an outside interface", Why: "subscribers reach nothing but the machine's own networks",
			Command: f.Config.inNamespace(`ip route replace default via "$GATEWAY" dev ` + Quote(f.Config.Outside[0])),
			Note:    "GATEWAY is the address of your upstream router; where a routing daemon is to make the route, look at its session",
		}
		if i := slices.IndexFunc(f.Routes, func(r Route) bool { return r.To.Bits() == 0 }); i >= 0 { // you may be connected by it
			finding.Command = ""
			finding.Note = "the default route leads to " + f.Routes[i].Device + ": give what needs that a narrower route, and then let the default one lead to your upstream router"
		}
		found = append(found, finding)
	}
	for _, g := range f.Config.Groups {
		for _, p := range g.Inside {
			found = append(found, f.insideRoute(p)...)
		}
		for _, p := range g.Outside {
			found = append(found, f.outsideRoute(p)...)
		}
	}
	return found
}

// insideRoute looks for a route to subscribers. Those who dial in come with routes of their own.
func (f *Facts) insideRoute(p netip.Prefix) []Finding {
	dialled := slices.ContainsFunc(f.Config.Inside, func(name string) bool { return strings.HasSuffix(name, "*") })
	led := slices.ContainsFunc(f.Routes, func(r Route) bool {
		return r.To.Bits() > 0 && r.To.Overlaps(p) && matches(f.Config.Inside, r.Device)
	})
	if dialled || led || len(f.Config.Inside) == 0 {
		return nil
	}
	return []Finding{{
		Severity: Must, Found: fmt.Sprintf("no route to the inside prefix %v leads to an inside interface", p),
		Why:     "replies to these subscribers leave elsewhere, and are dropped",
		Command: f.Config.inNamespace(fmt.Sprintf(`ip route replace %v via "$BNG" dev %s`, p, Quote(f.Config.Inside[0]))),
		Note:    "BNG is the address of your access router; where a routing daemon is to make the route, look at its session",
	}}
}

// outsideRoute looks at the route of a pool, which is a blackhole of sessiond's once it has run.
func (f *Facts) outsideRoute(p netip.Prefix) []Finding {
	i := slices.IndexFunc(f.Routes, func(r Route) bool { return r.To == p })
	switch {
	case i >= 0 && f.Routes[i].Blackhole, i < 0 && !f.Programmed:
		return nil
	case i < 0:
		return []Finding{{
			Severity: Should, Found: fmt.Sprintf("the pool %v has no blackhole route", p),
			Why:     "packets to ports that nobody has go round between this machine and its upstream router",
			Command: f.Config.inNamespace(fmt.Sprintf("ip route replace blackhole %v proto 93", p)), Note: "a running sessiond makes it within a second",
		}}
	}
	finding := Finding{
		Severity: Should, Found: fmt.Sprintf("the pool %v has a route to %s in the place of a blackhole", p, f.Routes[i].Device),
		Why:     "packets to ports that nobody has leave there, and a scan learns which ports are in use",
		Command: f.Config.inNamespace(fmt.Sprintf("ip route replace blackhole %v proto 93", p)), Note: "take the route out of the configuration of the network, too",
	}
	if f.isNetwork(p) {
		finding.Command, finding.Note = "", "it is the network of that interface: take its addresses out of groups[].outside, or give the interface others"
	}
	return []Finding{finding}
}

// isNetwork reports whether a prefix is the network of an interface, which goes by its route.
func (f *Facts) isNetwork(p netip.Prefix) bool {
	return slices.ContainsFunc(f.Links, func(l Link) bool {
		return slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return !a.IsSingleIP() && a.Masked() == p })
	})
}

func checkBarrier(f *Facts) []Finding {
	if len(f.Open) == 0 || f.is(ipForward, 0) {
		return nil
	}
	finding := Finding{
		Severity: Should, Found: "no barrier on " + strings.Join(f.Open, ", "),
		Why:     "while nftables is flushed or reloaded, packets of subscribers may leave untranslated",
		Command: f.Config.raiseBarrier(),
		Note:    "enable sessiond-barrier.service, which does that at each boot before packets are forwarded; a running sessiond does it by itself, and its log says why it could not",
	}
	if !f.Programmed {
		finding.Severity, finding.Why = Must, "the machine forwards, and nothing translates yet: packets of subscribers leave untranslated"
	}
	return []Finding{finding}
}

// raiseBarrier returns the command that puts up the barrier, in whatever namespace.
func (c *Config) raiseBarrier() string { return "sessiond --config " + Quote(c.File) + " --barrier" }
