package config

import "net/netip"

// claim is a prefix in the file, with its position.
type claim struct {
	value
	prefix netip.Prefix
}

// claims reads a list of IPv4 prefixes and notes them for checkPrefixes.
func claims(to *[]claim, v value) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, e := range v.sequence() {
		p, ok := e.prefix()
		switch a := p.Addr(); {
		case !ok:
		case !a.Is4():
			e.errorf("%v is not IPv4", p)
		case a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast():
			e.errorf("%v is not of addresses that hosts can have here", p)
		default:
			prefixes = append(prefixes, p)
			*to = append(*to, claim{e, p})
		}
	}
	return prefixes
}

// checkPrefixes checks the prefixes of all groups against each other.
func (l *loader) checkPrefixes() {
	checkOverlaps(l.inside, "inside")
	checkOverlaps(l.outside, "outside")
	for _, o := range l.outside {
		for _, i := range l.inside {
			if o.prefix.Overlaps(i.prefix) {
				o.errorf("%v overlaps the inside prefix %v (%s, line %d); an address is either inside or outside", o.prefix, i.prefix, i.key, i.line)
			}
		}
	}
}

func checkOverlaps(claims []claim, side string) {
	for i, c := range claims {
		for _, before := range claims[:i] {
			if c.prefix.Overlaps(before.prefix) {
				c.errorf("%v overlaps the %s prefix %v (%s, line %d); an address belongs to one group, once",
					c.prefix, side, before.prefix, before.key, before.line)
			}
		}
	}
}
