package config

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// StaticPorts are the ports of each outside address of a group that no block has, for mappings
// that last until they are deleted.
type StaticPorts struct {
	First, Last uint16 // inclusive; 0 and 0 for none
	PerOwner    int    // mappings of one owner; 0 for no bound
	Mappings    []StaticMapping
}

// StaticMapping is a mapping that the configuration makes. Its owner is a User-Name or an
// inside address.
type StaticMapping struct {
	User       string // "" for Inside
	Inside     netip.Addr
	Protocol   string // tcp or udp
	InsidePort uint16
	Outside    netip.AddrPort
}

// defaultPerOwner is the number of mappings that one owner may have.
const defaultPerOwner = 16

// readStaticPorts reads FIRST-LAST. Well-known ports are among those that servers need.
func readStaticPorts(v value, to *StaticPorts) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	switch a, b, ok := portPair(s); {
	case !ok || a == 0:
		v.errorf("%q is not a range of ports; write it such as 60000-65535", s)
	case a > b:
		v.errorf("%d-%d begins after its end; write %d-%d", a, b, b, a)
	default:
		to.First, to.Last = uint16(a), uint16(b)
	}
}

// readStaticMappings reads a list of mappings, which may be empty.
func readStaticMappings(v value) (list []StaticMapping, at []value) {
	for _, e := range v.list() {
		var m StaticMapping
		keys := e.mapping(fields{
			"user":        func(v value) { readUser(v, &m.User) },
			"inside":      func(v value) { readAddress(v, &m.Inside) },
			"protocol":    func(v value) { v.oneOf(&m.Protocol, "tcp", "udp") },
			"inside_port": func(v value) { v.port(&m.InsidePort) },
			"outside":     func(v value) { readOutsidePort(v, &m.Outside) },
		})
		e.require(keys, "protocol", "inside_port", "outside")
		if keys["user"] == keys["inside"] {
			e.errorf("write one of user, the User-Name of the subscriber wherever it is, and inside, an address that it always has")
		}
		list, at = append(list, m), append(at, e)
	}
	return list, at
}

// longestUserName is the longest that RADIUS transports (RFC 2865 section 5).
const longestUserName = 253

// readUser reads a User-Name.
func readUser(v value, to *string) {
	switch s, ok := v.scalar(); {
	case !ok:
	case s == "" || len(s) > longestUserName:
		v.errorf("a User-Name has 1 to %d octets", longestUserName)
	default:
		*to = s
	}
}

// readAddress reads an IPv4 address.
func readAddress(v value, to *netip.Addr) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		v.errorf("%q is not an IPv4 address; write it such as 100.64.0.7", s)
		return
	}
	*to = a
}

// readOutsidePort reads ADDRESS:PORT.
func readOutsidePort(v value, to *netip.AddrPort) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || !a.Addr().Is4() || a.Port() == 0 {
		v.errorf("%q is not an IPv4 address with a port; write it such as 198.51.100.1:60022", s)
		return
	}
	*to = a
}

// checkStatic checks that no block has a port of those set apart, and that the mappings fit
// the group. place is that of static_ports, at those of the mappings.
func checkStatic(g *Group, place value, at []value) {
	s := &g.Static
	if s.First == 0 {
		if len(s.Mappings) > 0 {
			at[0].errorf("the group has no ports for mappings; write static_ports, such as 60000-65535, and a port_range that ends before it")
		}
		return
	}
	size := int(g.BlockSize)
	first := (int(g.FirstPort) + size - 1) / size * size
	last := (int(g.LastPort)+1)/size*size - 1
	if int(s.First) <= last && first <= int(s.Last) {
		advice := "take static_ports from one end of port_range"
		switch {
		case int(s.Last) >= last && int(s.First) > first:
			advice = "write port_range: " + strconv.Itoa(int(g.FirstPort)) + "-" + strconv.Itoa(int(s.First)-1)
		case int(s.First) <= first && int(s.Last) < last:
			advice = "write port_range: " + strconv.Itoa(int(s.Last)+1) + "-" + strconv.Itoa(int(g.LastPort))
		}
		place.errorf("%d-%d has ports of blocks, which lie in %d-%d (port_range); %s too", s.First, s.Last, first, last, advice)
	}
	for i := range s.Mappings {
		checkMapping(at[i], g, i)
	}
}

// checkMapping checks the i-th mapping of a group against the group and those before it.
func checkMapping(v value, g *Group, i int) {
	m := &g.Static.Mappings[i]
	if !m.Outside.IsValid() || m.InsidePort == 0 || m.Protocol == "" {
		return // told already
	}
	switch port := m.Outside.Port(); {
	case port < g.Static.First || port > g.Static.Last:
		v.errorf("outside port %d is not in static_ports, %d-%d; write one of these", port, g.Static.First, g.Static.Last)
	case !addrrange.InOne(slices.Concat(g.Outside, g.Draining), m.Outside.Addr()):
		v.errorf("outside address %v is not in outside of this group; write an address of %v", m.Outside.Addr(), slices.Concat(g.Outside, g.Draining))
	case m.Inside.IsValid() && !addrrange.InOne(g.Inside, m.Inside):
		v.errorf("inside address %v is not in inside of this group; write an address of %v", m.Inside, g.Inside)
	}
	for j, other := range g.Static.Mappings[:i] {
		switch {
		case other.Protocol != m.Protocol:
		case other.Outside == m.Outside:
			v.errorf("%s %v is mapped in number %d of this list already; write another port", m.Protocol, m.Outside, j)
		case other.User == m.User && other.Inside == m.Inside && other.InsidePort == m.InsidePort:
			v.errorf("%s port %d of the same owner is mapped in number %d of this list already; keep one", m.Protocol, m.InsidePort, j)
		}
	}
}
