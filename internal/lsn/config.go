package lsn

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// GroupConfig describes one LSN group. Prefixes are IPv4.
type GroupConfig struct {
	Name      string
	Inside    []netip.Prefix
	Outside   []netip.Prefix
	Draining  []netip.Prefix // outside prefixes besides those of Outside that give no blocks; bindings there stay
	FirstPort nat.Port       // at least 1024 (RFC 4787 REQ-7 keeps 0-1023 apart)
	LastPort  nat.Port       // inclusive
	BlockSize int            // ports per block, a power of two
	MaxBlocks int            // blocks that one subscriber may have (RFC 6888 REQ-13); 0 is 1
	Hold      time.Duration  // quarantine before another subscriber may get a block (RFC 6888 REQ-8)

	Deterministic bool // blocks by Formula (RFC 7422)

	Grace       time.Duration // time in which a subscriber may come back to live sessions; 0: none
	GraceCauses []uint32      // Acct-Terminate-Causes that grant it, see GraceFor

	// Kept by the kernel, not by the engine.

	Limits   nat.Limits        // of each subscriber
	Learned  nat.Learned       // how its flows are mapped and filtered
	Timeouts nat.GroupTimeouts // of its flows; without Inside, which is the group's
	NoNAT    []nat.NoNAT       // its sessions that keep their inside address; without Inside

	Static StaticPorts // kept beside the engine, which gives no block with one of them
}

// StaticPorts are the ports of each outside address for mappings that outlive their sessions.
type StaticPorts struct {
	First, Last nat.Port // inclusive; 0 and 0 for none
	PerOwner    int      // static mappings of one owner; 0 for no bound
	PCP         PCP
	Mappings    []nat.Mapping
}

// PCP says what subscribers may ask for by PCP.
type PCP struct {
	On         bool
	Mappings   int            // of one subscriber
	ThirdParty []netip.Prefix // who may ask for others
}

// overlaps reports whether a block has one of the ports.
func (s *StaticPorts) overlaps(c *GroupConfig) bool {
	size := nat.Port(c.BlockSize)
	first := (int(c.FirstPort) + int(size) - 1) / int(size) * int(size)
	last := first + int(shapeOf(c).count)*int(size) - 1
	return s.First != 0 && int(s.First) <= last && first <= int(s.Last)
}

// AllOutside returns the outside prefixes, draining ones last.
func (c *GroupConfig) AllOutside() []netip.Prefix { return slices.Concat(c.Outside, c.Draining) }

// GraceFor returns the grace time of a subscriber whose session ended for an
// Acct-Terminate-Cause (RFC 2866 section 5.10): 0 where the group grants none.
func (c *GroupConfig) GraceFor(cause uint32) time.Duration {
	if cause == 0 || !slices.Contains(c.GraceCauses, cause) {
		return 0
	}
	return c.Grace
}

// Blocks returns the number of blocks that the group's pools would have with another block
// size; 0 if the port range has no whole block of it.
func (c *GroupConfig) Blocks(size int) int {
	other := *c
	other.BlockSize = size
	count, blocks := int(shapeOf(&other).count), 0
	for _, p := range c.Outside {
		blocks += count << (32 - p.Bits())
	}
	return blocks
}

// lowestPort is the first port outside of the well-known range, to which a NAT must not map
// other ports (RFC 4787 REQ-7, section 4.2.2).
const lowestPort = 1024

// maxBlocks bounds a group, 4 bytes a block; 16 where bindings may grow.
const maxBlocks = 1 << 27

// mostBlocks bounds the blocks of one subscriber: what is done about one costs as many steps.
const mostBlocks = 64

// grows reports whether bindings of the group may have several blocks.
func (c *GroupConfig) grows() bool { return c.MaxBlocks > 1 }

// validate reports the first error in the group by itself.
func (c *GroupConfig) validate() error {
	switch {
	case c.Name == "":
		return fmt.Errorf("group without a name")
	case c.FirstPort < lowestPort:
		return fmt.Errorf("group %s: first port %d is below %d", c.Name, c.FirstPort, lowestPort)
	case c.BlockSize <= 0 || bits.OnesCount(uint(c.BlockSize)) != 1:
		return fmt.Errorf("group %s: block size %d is not a power of two", c.Name, c.BlockSize)
	case c.BlockSize > 1<<15 || shapeOf(c).count == 0:
		return fmt.Errorf("group %s: no whole block of %d ports in %d-%d", c.Name, c.BlockSize, c.FirstPort, c.LastPort)
	case c.Static.overlaps(c):
		return fmt.Errorf("group %s: ports %d-%d of static mappings are ports of blocks", c.Name, c.Static.First, c.Static.Last)
	case c.MaxBlocks < 0 || c.MaxBlocks > mostBlocks:
		return fmt.Errorf("group %s: %d blocks for a subscriber are not within 0-%d", c.Name, c.MaxBlocks, mostBlocks)
	case c.Deterministic && c.grows():
		return fmt.Errorf("group %s: %d blocks for a subscriber in deterministic mode, which gives each one", c.Name, c.MaxBlocks)
	case c.Hold < 0:
		return fmt.Errorf("group %s: hold %v is negative", c.Name, c.Hold)
	case c.Grace < 0:
		return fmt.Errorf("group %s: grace time %v is negative", c.Name, c.Grace)
	}
	return c.validatePrefixes()
}

func (c *GroupConfig) validatePrefixes() error {
	for _, p := range slices.Concat(c.Inside, c.Outside, c.Draining) {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("group %s: %v is not an IPv4 prefix without host bits", c.Name, p)
		}
	}
	blocks := uint64(0)
	for _, p := range c.AllOutside() {
		blocks += uint64(shapeOf(c).count) << (32 - p.Bits())
	}
	if blocks > maxBlocks {
		return fmt.Errorf("group %s: %d blocks are more than %d", c.Name, blocks, maxBlocks)
	}
	return nil
}

// validateAll checks every group by itself, and that their names differ.
func validateAll(configs []GroupConfig) error {
	names := make(map[string]bool, len(configs))
	for i := range configs {
		if err := configs[i].validate(); err != nil {
			return err
		}
		if names[configs[i].Name] {
			return fmt.Errorf("group %s is there twice", configs[i].Name)
		}
		names[configs[i].Name] = true
	}
	return nil
}

// Subtract returns the parts of p that none of the holes contains: the fewest prefixes, in order. All
// are IPv4.
func Subtract(p netip.Prefix, holes []netip.Prefix) (parts []netip.Prefix) {
	for _, r := range addrrange.Of([]netip.Prefix{p}).Without(addrrange.Of(holes)) {
		parts = r.AppendPrefixes(parts)
	}
	return parts
}
