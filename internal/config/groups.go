package config

import (
	"fmt"
	"math/bits"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lowestPort is the first port after the well-known ports, to which NAT must
// not map other ports (RFC 4787 REQ-7, section 4.2.2).
const lowestPort = 1024

// maxGroupBlocks bounds the memory of a group, 12 bytes a block.
const maxGroupBlocks = 1 << 27

var groupName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

func (l *loader) groups(v value) {
	names := map[string]bool{}
	groups := v.sequence()
	for _, e := range groups {
		g := l.group(e)
		if g.Name != "" && names[g.Name] {
			e.child("name").errorf("%s is there twice; give each group a name of its own", g.Name)
		}
		names[g.Name] = true
		l.config.Groups = append(l.config.Groups, g)
	}
	l.groupValues = groups // as many as Groups
}

func (l *loader) group(v value) Group {
	g := Group{
		FirstPort: lowestPort, LastPort: 65535, BlockSize: 512, MaxBlocks: 1, Filtering: AddressAndPortDependent, Overload: true, Hold: 120 * time.Second, RecordTTL: 45 * time.Minute,
		Removal: Removal{GraceCauses: lostLine()},
		Static:  StaticPorts{PerOwner: defaultPerOwner},
		PCP:     defaultGroupPCP(),
		Guard:   Guard{Minimum: 100, Removed: 0.10, Expired: 0.20, NASRestart: 1, Window: 15 * time.Minute},
	}
	place, whole, overload, several, static, asked := v, v, v, v, v, v
	var mapped []value
	keys := v.mapping(fields{
		"name": func(v value) {
			v.matching(&g.Name, groupName, "lower-case letters, digits, dash and underscore, a letter or digit first")
		},
		"inside":        func(v value) { g.Inside = claims(&l.inside, v) },
		"outside":       func(v value) { g.Outside, g.Draining = outsideClaims(&l.outside, v) },
		"port_range":    func(v value) { place = v; v.ports(&g.FirstPort, &g.LastPort) },
		"block_size":    func(v value) { place = v; v.blockSize(&g.BlockSize) },
		"max_blocks":    func(v value) { several = v; readMaxBlocks(v, &g.MaxBlocks) },
		"deterministic": func(v value) { whole = v; v.boolean(&g.Deterministic) },
		"mapping":       func(v value) { v.oneOf(&g.Mapping, EndpointIndependent) },
		"filtering":     func(v value) { v.oneOf(&g.Filtering, AddressAndPortDependent, EndpointIndependent) },
		"port_overloading": func(v value) {
			overload = v
			v.boolean(&g.Overload)
		},
		"hold": func(v value) {
			if v.duration(&g.Hold, 0) {
				v.minimum(g.Hold, 120*time.Second, "RFC 6888 REQ-8")
			}
		},
		"record_ttl": func(v value) { v.duration(&g.RecordTTL, 0) },
		"removal":    func(v value) { v.removal(&g.Removal) },
		"guard":      func(v value) { v.guard(&g.Guard) },

		"idle_timeouts": func(v value) { v.idleTimeouts(&g.IdleTimeouts) },
		"port_timeouts": func(v value) { g.PortTimeouts = v.portTimeouts() },
		"alg":           func(v value) { v.withoutALG() },
		"limits":        func(v value) { v.limits(&g.Limits) },
		"no_nat":        func(v value) { g.NoNAT = l.noNAT(v) },

		"static_ports":              func(v value) { static = v; readStaticPorts(v, &g.Static) },
		"static_mappings":           func(v value) { g.Static.Mappings, mapped = readStaticMappings(v) },
		"static_mappings_per_owner": func(v value) { v.natural(&g.Static.PerOwner) },

		"pcp": func(v value) { asked = v; readGroupPCP(v, &g.PCP) },
	})
	v.require(keys, "name", "inside", "outside")
	if place.checkBlocks(&g) && g.Deterministic {
		whole.checkOwnBlocks(&g)
	}
	checkStatic(&g, static, mapped)
	checkGroupPCP(&g, asked)
	if g.Deterministic && g.MaxBlocks > 1 {
		several.errorf("%d blocks are not possible with deterministic, which gives each inside address the block of its number; write 1 and a larger block_size, or take deterministic out", g.MaxBlocks)
	}
	if g.Filtering == EndpointIndependent {
		g.Mapping = EndpointIndependent
	}
	if !g.Overload && g.Mapping == "" {
		overload.errorf("false needs learned mappings; write mapping: endpoint_independent too")
	}
	return g
}

func (v value) guard(g *Guard) {
	v.mapping(fields{
		"minimum":     func(v value) { v.natural(&g.Minimum) },
		"removed":     func(v value) { v.percent(&g.Removed) },
		"expired":     func(v value) { v.percent(&g.Expired) },
		"nas_restart": func(v value) { v.percent(&g.NASRestart) },
		"window":      func(v value) { v.duration(&g.Window, time.Second) },
	})
}

// highestRate bounds limits.new_sessions_per_second: more than any machine
// forwards.
const highestRate = 10_000_000

func (v value) limits(l *Limits) {
	reserve := v
	v.mapping(fields{
		"sessions":                func(v value) { v.natural(&l.Sessions) },
		"new_sessions_per_second": func(v value) { v.upTo(&l.NewSessionsPerSecond, highestRate) },
		"tcp_ports":               func(v value) { v.upTo(&l.TCPPorts, highestPort) },
		"udp_ports":               func(v value) { v.upTo(&l.UDPPorts, highestPort) },
		"reserve":                 func(v value) { reserve = v; v.natural(&l.Reserve) },
	})
	if l.Sessions > 0 && l.Reserve > l.Sessions {
		reserve.errorf("%d is more than sessions, %d; write at most that", l.Reserve, l.Sessions)
	}
}

// checkSessionLimits warns of a limit of a group that no subscriber comes to.
func (l *loader) checkSessionLimits() {
	most := l.config.NAT.MaxSessionsPerSubscriber
	for i, g := range l.config.Groups {
		if most > 0 && g.Limits.Sessions > most {
			l.groupValues[i].child("limits.sessions").warnf("%d is more than nat.max_sessions_per_subscriber, %d, which is in force here too; raise that as well", g.Limits.Sessions, most)
		}
	}
}

// highestPort is the last port, and the largest number of ports that count.
const highestPort = 65535

// upTo reads a number from 0 to most.
func (v value) upTo(to *int, most int) {
	n := *to
	if v.natural(&n); n > most {
		v.errorf("%d is too large; write at most %d", n, most)
		return
	}
	*to = n
}

// ports reads FIRST-LAST.
func (v value) ports(first, last *uint16) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	switch a, b, ok := portPair(s); {
	case !ok:
		v.errorf("%q is not a port range; write it such as 1024-65535", s)
	case a < lowestPort:
		v.errorf("port %d is below %d; well-known ports are not for NAT (RFC 4787 REQ-7): write a range from %d on", a, lowestPort, lowestPort)
	case a > b:
		v.errorf("%d-%d begins after its end; write %d-%d", a, b, b, a)
	default:
		*first, *last = uint16(a), uint16(b)
	}
}

// portPair reads the two ports of FIRST-LAST, in whatever order.
func portPair(s string) (first, last uint64, ok bool) {
	low, high, _ := strings.Cut(s, "-")
	first, errLow := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
	last, errHigh := strconv.ParseUint(strings.TrimSpace(high), 10, 16)
	return first, last, errLow == nil && errHigh == nil
}

func (v value) blockSize(to *int) {
	var n int
	switch ok := v.integer(&n); {
	case !ok:
	case n < 1 || n > 32768 || bits.OnesCount(uint(n)) != 1:
		v.errorf("%d is not a power of two from 1 to 32768; write one such as %d", n, nearestSize(n))
	default:
		*to = n
	}
}

// mostBlocks bounds the blocks of one subscriber.
const mostBlocks = 64

func readMaxBlocks(v value, to *int) {
	var n int
	switch ok := v.integer(&n); {
	case !ok:
	case n < 1 || n > mostBlocks:
		v.errorf("%d is not a number of blocks from 1 to %d; write 1 for subscribers that keep one block, or a larger block_size", n, mostBlocks)
	default:
		*to = n
	}
}

// nearestSize returns the block size at or below n.
func nearestSize(n int) int {
	return 1 << (bits.Len(uint(min(max(n, 1), 32768))) - 1)
}

// blocksOf returns the number of whole blocks of an outside address.
func (g *Group) blocksOf(size int) int {
	return (int(g.LastPort)+1)/size - (int(g.FirstPort)+size-1)/size
}

// checkBlocks checks that the group has blocks, and not too many.
func (v value) checkBlocks(g *Group) bool {
	count := g.blocksOf(g.BlockSize)
	if count < 1 {
		v.errorf("no whole block of %d ports, aligned to its size, is in %d-%d; write a wider port_range, or a smaller block_size", g.BlockSize, g.FirstPort, g.LastPort)
		return false
	}
	total := uint64(0)
	for _, p := range slices.Concat(g.Outside, g.Draining) {
		total += uint64(count) << (32 - p.Bits())
	}
	if total > maxGroupBlocks {
		v.errorf("%d blocks are more than %d; write fewer outside addresses or larger blocks", total, maxGroupBlocks)
		return false
	}
	return true
}

// checkOwnBlocks checks that a deterministic group has a block for each inside address.
func (v value) checkOwnBlocks(g *Group) {
	if len(g.Draining) > 0 {
		v.errorf("blocks follow the order of the outside prefixes, so none of them can drain (%v); write them all without draining, or take deterministic out", g.Draining[0])
		return
	}
	addresses := func(prefixes []netip.Prefix) (n int) {
		for _, p := range prefixes {
			n += 1 << (32 - p.Bits())
		}
		return n
	}
	inside, outside, each := addresses(g.Inside), addresses(g.Outside), g.blocksOf(g.BlockSize)
	if inside <= outside*each || outside == 0 {
		return
	}
	smaller := ""
	for size := g.BlockSize / 2; size > 0; size /= 2 {
		if outside*g.blocksOf(size) >= inside {
			smaller = fmt.Sprintf(", or block_size: %d", size)
			break
		}
	}
	v.errorf("each of %d inside addresses needs a block of its own, and %d outside addresses have %d of %d ports; write at most %d inside addresses, at least %d outside addresses%s",
		inside, outside, outside*each, g.BlockSize, outside*each, (inside+each-1)/each, smaller)
}
