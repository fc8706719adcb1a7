package config

import (
	"regexp"
	"slices"
	"strings"
)

const backendNftables = "nftables"

// interfaceNameLimit is the kernel's IFNAMSIZ without the closing NUL.
const interfaceNameLimit = 15

var tableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,62}$`)

func (l *loader) nat(v value) {
	c := &l.config.NAT
	keys := v.mapping(fields{
		"backend":            func(v value) { v.oneOf(&c.Backend, backendNftables, "memory") },
		"netns":              func(v value) { v.namespace(&c.NetNS) },
		"table":              func(v value) { v.matching(&c.Table, tableName, "a letter, then letters, digits and underscore") },
		"inside_interfaces":  func(v value) { c.InsideInterfaces = v.interfaces(c.OutsideInterfaces, true) },
		"outside_interfaces": func(v value) { c.OutsideInterfaces = v.interfaces(c.InsideInterfaces, false) },
		"flowtables":         func(v value) { l.flowtables = v.line; v.oneOf(&c.Flowtables, "refuse", "accept", "own") },
		"outside_to_others":  func(v value) { v.oneOf(&c.OutsideToOthers, "drop", "accept") },

		"max_sessions_per_subscriber":     func(v value) { v.natural(&c.MaxSessionsPerSubscriber) },
		"max_ungated_sessions_per_second": func(v value) { v.flowRate(&c.MaxUngatedSessionsPerSecond) },
		"max_mappings":                    func(v value) { v.mappingLimit(&c.MaxMappings) },
	})
	l.requireInterfaces(v, keys)
	if c.Flowtables == "own" && c.Backend != backendNftables {
		v.child("flowtables").errorf("own needs a kernel; write refuse, or backend: nftables")
	}
}

// checkFlowtables warns of a flowtable's effects, which neither removals nor lists can undo.
func (l *loader) checkFlowtables() {
	mode := l.config.NAT.Flowtables
	if mode == "refuse" {
		return
	}
	v := value{report: l.report, key: "nat.flowtables", line: l.flowtables}
	v.warnf("is %s: sessions in a flowtable pass no gate and no rule; a removal cuts them as it deletes their conntrack entries, and their idle timeouts are the longest of all groups", mode)
	if mode != "accept" {
		return
	}
	for _, g := range l.config.Groups {
		if len(g.NoNAT) > 0 {
			v.warnf("is accept: no_nat of group %s needs its destinations kept from rules that add flows: packets that pass no chain are kept back by the filter on the outside interfaces", g.Name)
		}
		if g.Mapping != "" {
			v.warnf("is accept: mapping of group %s needs its subscribers kept from rules that add flows: their mappings run out while flows go on", g.Name)
		}
	}
}

// flowRateLimit keeps nftables' arithmetic exact, which divides a nanosecond by
// the rate.
const flowRateLimit = 1_000_000

// flowRate reads a number of flows a second, 0 for no bound.
func (v value) flowRate(to *int) {
	var n int
	v.natural(&n)
	if n > flowRateLimit {
		v.errorf("%d is too large; write at most %d, or 0 for no bound", n, flowRateLimit)
		return
	}
	*to = n
}

// mappingsMost is the largest bound of learned mappings: they take some 500 octets of the
// kernel's memory each.
const mappingsMost = 16 << 20

func (v value) mappingLimit(to *int) {
	var n int
	switch ok := v.integer(&n); {
	case !ok:
	case n < 1 || n > mappingsMost:
		v.errorf("%d is out of range; write 1 to %d", n, mappingsMost)
	default:
		*to = n
	}
}

// requireInterfaces reports missing inside or outside interfaces of the
// nftables backend.
func (l *loader) requireInterfaces(v value, keys map[string]bool) {
	if l.config.NAT.Backend == backendNftables {
		v.require(keys, "inside_interfaces", "outside_interfaces")
	}
}

// namespace reads a name under /run/netns or an absolute path.
func (v value) namespace(to *string) {
	s, ok := v.scalar()
	switch {
	case !ok:
	case strings.Contains(s, "/") && !strings.HasPrefix(s, "/"):
		v.errorf("%q is neither a name under /run/netns nor an absolute path", s)
	default:
		*to = s
	}
}

// interfaces reads names of interfaces that are not in the other list. For
// dialled interfaces, which come and go, a list may have a prefix of their
// names followed by "*".
func (v value) interfaces(other []string, dialled bool) []string {
	var names []string
	seen := slices.Clone(other)
	for _, e := range v.sequence() {
		s, ok := e.scalar()
		begin, pattern := strings.CutSuffix(s, "*")
		switch {
		case !ok:
		case pattern && !dialled:
			e.errorf("%q is not the name of one interface; outside interfaces are named one by one", s)
		case begin == "" || len(s) > interfaceNameLimit || strings.ContainsAny(begin, "/ \t\n\"") || s == "." || s == "..":
			e.errorf("%q is not an interface name; it has 1 to %d characters without blanks and slashes", s, interfaceNameLimit)
		case wildcard(begin):
			e.errorf("%q stands for several interfaces, which is not possible here; name each, have them take one name or one bridge, or, of inside interfaces, write how their names begin and *, as ppp*", s)
		case strings.ContainsAny(s, "@:"):
			e.errorf("%q is how other programs write it; write the name of the interface alone, without @ or :", s)
		case slices.ContainsFunc(seen, func(before string) bool { return sameInterface(s, before) }):
			e.errorf("%s is there twice; an interface is either inside or outside, once", s)
		default:
			names = append(names, s)
		}
		seen = append(seen, s)
	}
	return names
}

// wildcard reports whether a name would mean several interfaces in iptables
// (+), nft (*), systemd (?, [) or kernel numbering (%d), or names an interface
// group (@). Here each would be taken for the name of one interface, which does
// not exist.
func wildcard(s string) bool {
	return strings.HasPrefix(s, "@") || strings.HasSuffix(s, "+") || strings.ContainsAny(s, "*?[]%")
}

// sameInterface reports whether two names, or prefixes of names, may match the
// same interface.
func sameInterface(a, b string) bool {
	beginA, patternA := strings.CutSuffix(a, "*")
	beginB, patternB := strings.CutSuffix(b, "*")
	return a == b || patternA && strings.HasPrefix(beginB, beginA) || patternB && strings.HasPrefix(beginA, beginB)
}

func (l *loader) settings(v value) {
	c := &l.config.Settings
	v.mapping(fields{
		"subscriber_session_removal": func(v value) { v.removalMode(&c.SubscriberSessionRemoval) },
		"idle_timeouts":              func(v value) { v.idleTimeouts(&c.IdleTimeouts) },
	})
}
