package lsn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/arena"
	"github.com/sessiond/sessiond/internal/fifo"
	"github.com/sessiond/sessiond/internal/nat"
)

// MayReconfigure returns the error that Reconfigure would return, and changes nothing.
func (e *Engine) MayReconfigure(configs []GroupConfig) error {
	_, err := e.planAll(configs)
	return err
}

// Reconfigure replaces the groups. Removed groups and outside prefixes keep their bindings
// and give no new ones; holders that wait in a removed group or at a removed inside address
// are forgotten. Current holds keep their ends. Port range and block size of a group may
// change, and a part of an outside prefix may go to another group, only while no binding
// uses them: else ErrInUse. After an error nothing has changed.
func (e *Engine) Reconfigure(configs []GroupConfig) error {
	plans, err := e.planAll(configs)
	if err != nil {
		return err
	}
	e.groups = e.groups[:0]
	for i := range plans {
		e.groups = append(e.groups, plans[i].carryOut())
	}
	slices.SortFunc(e.groups, func(a, b *group) int { return strings.Compare(a.config.Name, b.config.Name) })
	e.routes = routesOf(e.groups)
	return nil
}

// planAll plans every group, and checks that the plans are possible.
func (e *Engine) planAll(configs []GroupConfig) ([]plan, error) {
	if err := validateAll(configs); err != nil {
		return nil, err
	}
	plans, err := e.plan(configs)
	if err != nil {
		return nil, err
	}
	return plans, disjoint(plans)
}

// plan is the planned state of one group.
type plan struct {
	old      *group // nil for a new group
	config   GroupConfig
	retired  bool           // the group is no longer configured
	leftover []netip.Prefix // no longer configured, but blocks in them have holders
}

// plan returns a plan for every configured group and every group with bindings.
func (e *Engine) plan(configs []GroupConfig) ([]plan, error) {
	var plans []plan
	kept := make(map[*group]bool)
	for _, c := range configs {
		c.Inside, c.Outside, c.Draining = slices.Clone(c.Inside), slices.Clone(c.Outside), slices.Clone(c.Draining)
		g := e.group(c.Name)
		kept[g] = true
		if g != nil && g.shape != shapeOf(&c) && g.inUse() {
			return nil, fmt.Errorf("group %s: port range and block size cannot change by a reload: %w; restart, which takes all over whose blocks fit", c.Name, ErrInUse)
		}
		plans = append(plans, plan{old: g, config: c, leftover: g.leftover(c.AllOutside())})
	}
	for _, g := range e.groups {
		if !kept[g] && g.inUse() {
			c := g.config
			c.Inside, c.Outside, c.Draining = nil, nil, nil
			plans = append(plans, plan{old: g, config: c, retired: true, leftover: g.leftover(nil)})
		}
	}
	return plans, nil
}

// inUse reports whether the group has bindings.
func (g *group) inUse() bool {
	return slices.ContainsFunc(g.segments, func(s poolPrefix) bool { return s.used+s.held > 0 })
}

// leftover returns the parts of the group's segments that are not in the new outside
// prefixes, but have holders.
func (g *group) leftover(outside []netip.Prefix) []netip.Prefix {
	if g == nil {
		return nil
	}
	var gone []netip.Prefix
	for i := range g.segments {
		gone = append(gone, Subtract(g.segments[i].prefix, outside)...)
	}
	if len(gone) == 0 {
		return nil
	}
	used := make(map[netip.Prefix]bool)
	for l := range g.leases {
		b := g.segmentOf(l.cell).block(&g.shape, l.cell)
		for _, p := range gone {
			used[p] = used[p] || p.Contains(b.Outside)
		}
	}
	return slices.DeleteFunc(gone, func(p netip.Prefix) bool { return !used[p] })
}

// disjoint checks that no outside address would be in two segments.
func disjoint(plans []plan) error {
	type claim struct {
		prefix   netip.Prefix
		group    string
		leftover bool
	}
	var claims []claim
	for i := range plans {
		p := &plans[i]
		for _, prefix := range p.config.AllOutside() {
			claims = append(claims, claim{prefix, p.config.Name, false})
		}
		for _, prefix := range p.leftover {
			claims = append(claims, claim{prefix, p.config.Name, true})
		}
	}
	slices.SortFunc(claims, func(a, b claim) int { return a.prefix.Compare(b.prefix) })
	for i := 1; i < len(claims); i++ { // prefixes nest or are apart: an overlap shows between neighbours
		a, b := claims[i-1], claims[i]
		switch {
		case !a.prefix.Overlaps(b.prefix):
		case a.leftover || b.leftover:
			return fmt.Errorf("outside prefix %v of group %s, %v of group %s: %w", a.prefix, a.group, b.prefix, b.group, ErrInUse)
		default:
			return fmt.Errorf("outside prefix %v of group %s overlaps %v of group %s", a.prefix, a.group, b.prefix, b.group)
		}
	}
	return nil
}

// carryOut returns the group as planned.
func (p *plan) carryOut() *group {
	if p.old == nil {
		return newGroup(p.config)
	}
	g := p.old
	if p.retired || !g.sameLayout(p) {
		g = p.rebuild()
	}
	g.config = p.config
	g.forgetUncovered()
	if g.ready = nil; g.config.Deterministic {
		g.readyAll()
	}
	return g
}

// sameLayout reports whether the plan leaves the group's segments as they are.
func (g *group) sameLayout(p *plan) bool {
	return !g.retired && g.shape == shapeOf(&p.config) && g.config.Deterministic == p.config.Deterministic &&
		max(1, g.config.MaxBlocks) == max(1, p.config.MaxBlocks) && slices.Equal(g.config.Outside, p.config.Outside) &&
		slices.Equal(g.config.Draining, p.config.Draining) && len(g.segments) == len(p.config.Outside)+len(p.config.Draining)
}

func newGroup(c GroupConfig) *group {
	g := &group{config: c, shape: shapeOf(&c), subscribers: new(subscriberIndex), kept: arena.New[heldLease](heldPageBits), waiting: newWaitQueue()}
	g.lay(&c, nil)
	g.rankFree()
	return g
}

// rankFree chooses the order of free blocks, of which there are only fresh ones.
func (g *group) rankFree() {
	if g.ranked = nil; g.config.grows() {
		g.ranked = newRankedCells(g)
	}
}

// lay makes the group's segments, with every cell fresh.
func (g *group) lay(c *GroupConfig, leftover []netip.Prefix) {
	g.segments = nil
	base := uint32(firstCell)
	configured := len(c.Outside) + len(c.Draining)
	for i, p := range slices.Concat(c.Outside, c.Draining, leftover) {
		s := newPoolPrefix(p, i >= len(c.Outside), i < configured, base)
		g.segments = append(g.segments, s)
		base += s.cells(&g.shape)
	}
	g.owners = make([]uint32, base)
}

// rebuild lays the group out again and moves leases and free blocks to it. If the layout of
// blocks changes, there are no leases, and all blocks become fresh.
func (p *plan) rebuild() *group {
	old := p.old
	g := *old
	g.config = p.config
	g.shape, g.retired, g.turn, g.level = shapeOf(&p.config), p.retired, 0, 0
	g.lay(&p.config, p.leftover)
	g.free, g.quarantined, g.several = fifo.Queue[uint32]{}, nil, nil
	g.rankFree()
	if g.shape != old.shape {
		return &g
	}
	for l := range g.leases {
		g.moveLease(l, old)
	}
	if p.config.Deterministic {
		return &g // free blocks have no order
	}
	for o := range old.freeCells {
		if c, ok := g.moveFree(o, old); ok {
			g.freed(c)
		}
	}
	for _, o := range old.quarantined {
		if c, ok := g.moveFree(o, old); ok {
			g.quarantined = append(g.quarantined, c)
		}
	}
	return &g
}

// moveLease moves a lease to the present cells of its blocks.
func (g *group) moveLease(l *lease, old *group) {
	blocks := old.blocksOf(l.cell)
	var room [4]uint32
	cells, ok := g.cellsOf(room[:0], blocks)
	if !ok {
		panic(fmt.Sprintf("lsn: group %s: ports %s of %v have a holder and no segment", g.config.Name, blocks.Ports(), blocks.Outside))
	}
	g.assign(old.owners[l.cell], blocks, cells, old.several[l.cell].since)
	l.cell = cells[0]
	if s := g.segmentOf(l.cell); l.state == nat.Held {
		s.held += len(cells)
	} else {
		s.used += len(cells)
	}
}

// moveFree returns the present cell of a free block, or false if it is not given any more.
func (g *group) moveFree(o uint32, old *group) (uint32, bool) {
	c, ok := g.cellOf(old.segmentOf(o).block(&old.shape, o))
	if !ok || g.segmentOf(c).retired {
		return none, false
	}
	g.owners[c] = old.owners[o]
	return c, true
}

// forgetUncovered forgets waiting holders whose inside address is no longer the group's.
func (g *group) forgetUncovered() {
	for w := g.waiting.front(); w != none; {
		next := g.waiting.waiters[w].next
		if inside := addrrange.Address(g.waiting.waiters[w].inside); !g.covers(inside) {
			g.forget(inside)
		}
		w = next
	}
}
