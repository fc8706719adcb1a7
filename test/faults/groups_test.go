package faults

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A groupSpec is a group of subscribers, all of whose lines get the same operations and
// faults, with what NAT is like there.
type groupSpec struct {
	name       string
	inside     netip.Prefix
	first      netip.Addr // inside address of the first line
	lines      int
	outside    netip.Prefix
	ports      int // of each outside address, from lowestPort on
	blockSize  int
	maxBlocks  int
	config     string        // further settings
	udpTimeout time.Duration // idle timeout of UDP
	flows      int           // lines with flows at a time

	cone   bool // full cone: others reach mapped ports
	fixed  bool // deterministic: blocks by formula
	noNAT  bool // towards plainHost
	limits limits
}

// limits are the limits of each subscriber of a group; 0 for none.
type limits struct{ sessions, udpPorts, rate int }

const (
	lowestPort = 2048
	hold       = 2 * time.Second
	// sinkPort is a port of the first remote to which bursts go: no answers, and sessions that
	// last for sinkTimeout only.
	sinkPort    = 7001
	sinkTimeout = 10 * time.Second
)

var (
	insidePrefix = netip.MustParsePrefix("100.64.0.0/10") // of all groups
	poolPrefixes = []netip.Prefix{                        // routed to the CGN
		netip.MustParsePrefix("198.51.100.0/31"), // the default group's, first
		netip.MustParsePrefix("198.51.100.2/31"), netip.MustParsePrefix("198.51.100.8/29"),
	}
	// The hosts outside: one that answers, one that sends where nobody asked it to, and one
	// that sees inside addresses of a group with noNAT.
	answering, stranger, plainHost = netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.20"), netip.MustParseAddr("203.0.113.30")
)

// defaultGroup has, with blocks in hold, sometimes more subscribers than free blocks. Its
// pools change at run time.
var defaultGroup = &groupSpec{
	name: "default", inside: netip.MustParsePrefix("100.64.0.0/12"), first: netip.MustParseAddr("100.64.1.1"), lines: 40,
	outside: netip.MustParsePrefix("198.51.100.0/31"), ports: 18 * 64, blockSize: 64, udpTimeout: 300 * time.Second, flows: 6,
}

// growingGroup has small blocks, of which a subscriber gets several.
var growingGroup = &groupSpec{
	name: "growing", inside: netip.MustParsePrefix("100.80.0.0/14"), first: netip.MustParseAddr("100.80.1.1"), lines: 8,
	outside: netip.MustParsePrefix("198.51.100.8/32"), ports: 24 * 16, blockSize: 16, maxBlocks: 4,
	udpTimeout: 200 * time.Second, flows: 3, noNAT: true,
	config: fmt.Sprintf("max_blocks: 4, idle_timeouts: {udp: 200s}, port_timeouts: [{protocol: udp, port: %d, timeout: %s}], no_nat: [{prefix: %s/32, protocol: udp}]",
		sinkPort, sinkTimeout, plainHost),
}

// coneGroup is full cone. With port overloading some endpoints would have no mapping.
var coneGroup = &groupSpec{
	name: "cone", inside: netip.MustParsePrefix("100.84.0.0/14"), first: netip.MustParseAddr("100.84.1.1"), lines: 8,
	outside: netip.MustParsePrefix("198.51.100.9/32"), ports: 12 * 64, blockSize: 64, udpTimeout: 300 * time.Second, flows: 3,
	cone: true, config: "mapping: endpoint_independent, filtering: endpoint_independent, port_overloading: false",
}

// limitedGroup has limits that bursts reach, and leave soon after.
var limitedGroup = &groupSpec{
	name: "limited", inside: netip.MustParsePrefix("100.88.0.0/14"), first: netip.MustParseAddr("100.88.1.1"), lines: 6,
	outside: netip.MustParsePrefix("198.51.100.10/32"), ports: 9 * 64, blockSize: 64, udpTimeout: sinkTimeout, flows: 2,
	limits: limits{sessions: 24, udpPorts: 12, rate: 100},
	config: fmt.Sprintf("limits: {sessions: 24, udp_ports: 12, new_sessions_per_second: 100}, idle_timeouts: {udp: %s}", sinkTimeout),
}

// fixedGroup is deterministic.
var fixedGroup = &groupSpec{
	name: "fixed", inside: netip.MustParsePrefix("100.92.0.0/29"), first: netip.MustParseAddr("100.92.0.1"), lines: 6,
	outside: netip.MustParsePrefix("198.51.100.12/31"), ports: 4 * 64, blockSize: 64, udpTimeout: 300 * time.Second, flows: 2,
	fixed: true, config: "deterministic: true",
}

// groups are the groups whose lines the plan draws.
var groups = []*groupSpec{defaultGroup, growingGroup, coneGroup, limitedGroup, fixedGroup}

// keys begins the names of the group's keys in Redis.
func (g *groupSpec) keys() string { return "sessiond:{" + g.name + "}:" }

// capacity is the number of the group's blocks.
func (g *groupSpec) capacity() int { return g.blocksOf(g.outside) }

func (g *groupSpec) blocksOf(outside netip.Prefix) int {
	return g.ports / g.blockSize << (32 - outside.Bits())
}

func (g *groupSpec) portRange() string { return fmt.Sprintf("%d-%d", lowestPort, lowestPort+g.ports-1) }

// text is the group's configuration, for all but the rig's own group.
func (g *groupSpec) text() string {
	return fmt.Sprintf("name: %s, inside: [%s], outside: [%s], port_range: %s, block_size: %d, hold: %s, %s, %s",
		g.name, g.inside, g.outside, g.portRange(), g.blockSize, hold, g.static(), g.config)
}

// formula returns the block of an inside address of a deterministic group (RFC 7422): the
// n-th address has the n-th block.
func (g *groupSpec) formula(inside netip.Addr) (outside netip.Addr, block blockPorts) {
	n := 0
	for a := g.inside.Addr(); a != inside; a = a.Next() {
		n++
	}
	each := g.ports / g.blockSize
	outside = g.outside.Addr()
	for range n / each {
		outside = outside.Next()
	}
	first := uint16(lowestPort + n%each*g.blockSize)
	return outside, blockPorts{first, first + uint16(g.blockSize) - 1}
}

// groupAt returns the group of an inside address; nil for none of the plan's.
func groupAt(inside netip.Addr) *groupSpec {
	i := slices.IndexFunc(groups, func(g *groupSpec) bool { return g.inside.Contains(inside) })
	if i < 0 {
		return nil
	}
	return groups[i]
}
