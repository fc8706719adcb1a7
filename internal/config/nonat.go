package config

import (
	"net/netip"
	"strconv"
	"strings"
)

// NoNAT are destinations to which a group's subscribers keep their inside addresses.
type NoNAT struct {
	Prefix              netip.Prefix
	Protocol            string // tcp, udp or icmp; "" for all three
	FirstPort, LastPort uint16 // of the destination, inclusive; 0 and 65535 for all
}

// noNAT reads a list of destinations, which may be empty.
func (l *loader) noNAT(v value) []NoNAT {
	var list []NoNAT
	for _, e := range v.list() {
		n := NoNAT{LastPort: 65535}
		ports := e
		limited := false
		keys := e.mapping(fields{
			"prefix": func(v value) {
				var ok bool
				n.Prefix, ok = v.prefix()
				switch {
				case !ok:
				case !n.Prefix.Addr().Is4():
					v.errorf("%v is not IPv4; write an IPv4 prefix", n.Prefix)
				default:
					l.noNATs = append(l.noNATs, claim{v, n.Prefix})
				}
			},
			"protocol": func(v value) { v.oneOf(&n.Protocol, "tcp", "udp", "icmp") },
			"ports": func(v value) {
				ports, limited = v, true
				v.destinationPorts(&n.FirstPort, &n.LastPort)
			},
		})
		e.require(keys, "prefix")
		if limited && n.Protocol != "tcp" && n.Protocol != "udp" {
			ports.errorf("ports are of one protocol; write protocol: tcp or protocol: udp beside them")
		}
		list = append(list, n)
	}
	return list
}

// destinationPorts reads PORT or FIRST-LAST.
func (v value) destinationPorts(first, last *uint16) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	a, errLow := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
	b, errHigh := strconv.ParseUint(strings.TrimSpace(high), 10, 16)
	switch {
	case errLow != nil || errHigh != nil || a == 0:
		v.errorf("%q is not a port or a port range; write it such as 443 or 5060-5069", s)
	case a > b:
		v.errorf("%d-%d begins after its end; write %d-%d", a, b, b, a)
	default:
		*first, *last = uint16(a), uint16(b)
	}
}

// checkNoNAT checks that destinations are hosts elsewhere.
func (l *loader) checkNoNAT() {
	for _, n := range l.noNATs {
		for side, claims := range map[string][]claim{"inside": l.inside, "outside": l.outside} {
			for _, c := range claims {
				if n.prefix.Overlaps(c.prefix) {
					n.errorf("%v overlaps the %s prefix %v (%s, line %d); write hosts beyond the outside interfaces", n.prefix, side, c.prefix, c.key, c.line)
				}
			}
		}
	}
}
