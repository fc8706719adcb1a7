package config

import (
	"net/netip"

	"github.com/goccy/go-yaml/ast"
)

// claim is a prefix in the file, with its position.
type claim struct {
	value
	prefix netip.Prefix
}

// claims reads a list of IPv4 prefixes and notes them for checkPrefixes.
func claims(to *[]claim, v value) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, e := range v.sequence() {
		if p, ok := e.claim(to); ok {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// claim reads an IPv4 prefix and notes it for checkPrefixes.
func (v value) claim(to *[]claim) (p netip.Prefix, ok bool) {
	p, ok = v.prefix()
	switch a := p.Addr(); {
	case !ok:
	case !a.Is4():
		v.errorf("%v is not IPv4; write an IPv4 prefix", p)
	case a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast():
		v.errorf("%v is not of addresses that hosts can have here", p)
	default:
		*to = append(*to, claim{v, p})
		return p, true
	}
	return p, false
}

// outsideClaims reads outside prefixes, each written as such, or as a mapping that may say
// that it drains.
func outsideClaims(to *[]claim, v value) (outside, draining []netip.Prefix) {
	for _, e := range v.sequence() {
		place, drains := e, false
		if _, ok := e.node.(ast.MapNode); ok {
			keys := e.mapping(fields{
				"prefix":   func(v value) { place = v },
				"draining": func(v value) { v.boolean(&drains) },
			})
			if e.require(keys, "prefix"); !keys["prefix"] {
				continue
			}
		}
		switch p, ok := place.claim(to); {
		case !ok:
		case drains:
			draining = append(draining, p)
		default:
			outside = append(outside, p)
		}
	}
	return outside, draining
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
