package lsn

import (
	"net/netip"
	"sort"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/prefixtable"
)

// none is the index of no held lease, waiter or cell: element 0 of each slice is unused, so
// that the zero value of an index means absence.
const none = 0

// firstCell is the number of a group's first block.
const firstCell = none + 1

// fresh marks a block that was never given: the inside address 0.0.0.0, which
// no subscriber has (RFC 6890). For other blocks the group keeps the last
// inside address, whose state tells whether it still has the block.
const fresh = 0

// blockLayout is the division of each outside address's ports into blocks, aligned to their
// size, and only whole ones within the port range.
type blockLayout struct {
	size  uint32 // ports per block
	first uint32 // number of the first block; block n begins at port n*size
	count uint32 // blocks per outside address
}

func shapeOf(c *GroupConfig) blockLayout {
	size := uint32(c.BlockSize)
	first := (uint32(c.FirstPort) + size - 1) / size
	end := (uint32(c.LastPort) + 1) / size
	if end <= first {
		return blockLayout{size: size, first: first}
	}
	return blockLayout{size: size, first: first, count: end - first}
}

// poolPrefix is one outside prefix of a group and its cells, a segment of the group's
// cells: shape.count of them for each address, in the order of addresses. Every address of the prefix is
// usable, its first and last too: the prefix is a routed pool, not a link.
type poolPrefix struct {
	prefix  netip.Prefix
	retired bool   // gives no blocks: it drains, or is no longer configured
	kept    bool   // configured
	low     uint32 // first address
	size    uint32 // addresses
	base    uint32 // first cell
	fresh   uint32 // number of cells, in the order of cellInOrder, that freshIn has considered

	used, held int // leased cells, by state of their binding
	idle       int // cells in the free list
}

func newPoolPrefix(p netip.Prefix, retired, kept bool, base uint32) poolPrefix {
	return poolPrefix{prefix: p, retired: retired, kept: kept, low: addrrange.Number(p.Addr()), size: 1 << (32 - p.Bits()), base: base}
}

func (s *poolPrefix) cells(sh *blockLayout) uint32 { return s.size * sh.count }

// cellInOrder returns the segment's n-th cell to be given for the first time: a block of
// every address before the next block of any, so that a pool's addresses fill evenly.
func (g *group) cellInOrder(s *poolPrefix, n uint32) uint32 {
	block := n / s.size
	if g.ranked != nil {
		block = uint32(g.ranked.order[block])
	}
	return s.base + n%s.size*g.shape.count + block
}

// cellAt returns the cell whose block contains the outside address and port.
func (s *poolPrefix) cellAt(sh *blockLayout, outside netip.Addr, port nat.Port) (uint32, bool) {
	if !s.prefix.Contains(outside) {
		return none, false
	}
	n := uint32(port) / sh.size
	if n < sh.first || n >= sh.first+sh.count {
		return none, false
	}
	return s.base + (addrrange.Number(outside)-s.low)*sh.count + n - sh.first, true
}

// segmentOf returns the segment of a cell.
func (g *group) segmentOf(c uint32) *poolPrefix {
	if len(g.segments) == 1 {
		return &g.segments[0]
	}
	i := sort.Search(len(g.segments), func(i int) bool { return g.segments[i].base > c })
	return &g.segments[i-1]
}

// block returns the block of one of the segment's cells.
func (s *poolPrefix) block(sh *blockLayout, cell uint32) nat.Block {
	cell -= s.base
	first := (sh.first + cell%sh.count) * sh.size
	return nat.Block{
		Outside: addrrange.Address(s.low + cell/sh.count),
		First:   nat.Port(first),
		Last:    nat.Port(first + sh.size - 1),
	}
}

// route leads from an outside address to its segment.
type route struct {
	segment *poolPrefix
	group   *group
}

// routesOf returns the routes to every segment. No two of them overlap.
func routesOf(groups []*group) (routes prefixtable.Table[route]) {
	for _, g := range groups {
		for i := range g.segments {
			s := &g.segments[i]
			routes.Put(s.prefix, route{s, g})
		}
	}
	return routes
}
