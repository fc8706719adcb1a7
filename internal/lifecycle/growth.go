package lifecycle

import (
	"errors"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
)

// A subscriber that uses most of its ports gets a block more (RFC 6888 REQ-13, NAT-35). The
// kernel takes the ports of new sessions from one range: that of the newest block with those
// that adjoin it, or for a time another range of the binding. A block that is no longer
// needed is left out of that range first, and given back once no session uses it.

// Shares of ports in use, of the protocol that uses the most of them. A binding grows at
// highWater of the range of new sessions: far enough below 90 % to be there in time. It gives
// a block back below lowWater of the ports without it, which is far from where it would grow.
const (
	highWater = 0.75
	lowWater  = 0.50
)

// lowTime is how long a binding has to be below lowWater before a block is given back, and
// refusedEvery the time between two reports that a subscriber got none.
const (
	lowTime      = time.Minute
	refusedEvery = time.Minute
)

// HighWater returns the number of ports in use at which a range of so many ports is full
// enough to grow.
func HighWater(ports int) int { return int(highWater * float64(ports)) }

// LowWater returns the number of ports in use up to which the newest of several blocks is
// not needed.
func LowWater(b nat.Blocks) int { return int(lowWater * float64(b.Older().Len()*b.Size())) }

// PortUse has the ports in use of one binding, by block and protocol.
type PortUse struct {
	blocks  nat.Blocks
	used    map[nat.Block]map[uint8]int
	seen    map[protocolPort]struct{}
	towards []portTowards // a session each
}

type protocolPort struct {
	protocol uint8
	port     nat.Port
}

// portTowards is a port that is used towards a remote endpoint.
type portTowards struct {
	protocolPort
	remote netip.AddrPort
}

// NewPortUse returns the use of blocks without a session.
func NewPortUse(b nat.Blocks) *PortUse {
	return &PortUse{blocks: b, used: map[nat.Block]map[uint8]int{}, seen: map[protocolPort]struct{}{}}
}

// Add takes a session of the subscriber. Several sessions may have one port.
func (u *PortUse) Add(s *nat.Session) {
	at := protocolPort{s.Protocol, nat.Port(s.Outside.Port())}
	if u.blocks.Contains(s.Outside.Addr(), at.port) {
		u.towards = append(u.towards, portTowards{at, s.Remote})
	}
	if _, seen := u.seen[at]; seen {
		return
	}
	for b := range u.blocks.All() {
		if !b.Contains(s.Outside.Addr(), at.port) {
			continue
		}
		if u.used[b] == nil {
			u.used[b] = map[uint8]int{}
		}
		u.used[b][at.protocol]++
		u.seen[at] = struct{}{}
	}
}

// in returns the number of ports in use within a range, of the protocol with the most.
func (u *PortUse) in(r nat.Block) (most int) {
	sums := map[uint8]int{}
	for b, used := range u.used {
		if !r.Contains(b.Outside, b.First) {
			continue
		}
		for protocol, n := range used {
			sums[protocol] += n
			most = max(most, sums[protocol])
		}
	}
	return most
}

// all is in for all blocks.
func (u *PortUse) all() int {
	return u.in(nat.Block{Outside: u.blocks.Outside, First: 0, Last: 1<<16 - 1})
}

// free returns the number of ports of a range that no session uses.
func (u *PortUse) free(r nat.Block) int { return r.Size() - u.in(r) }

// growth is the state of a binding that has several blocks, was refused one, or misses ports.
type growth struct {
	low       time.Time  // since when it has been below lowWater; zero: it is not
	part      *Part      // the block about whose sessions the kernel is asked, nil for none
	refused   time.Time  // when the last refusal was reported
	most      bool       // the last one was because of the group's bound
	narrowing *narrowing // of the last look; nil while nf_nat finds its ports
}

// A Part is a block that may be given back once the kernel has no session in it.
type Part struct {
	Inside netip.Addr
	Block  nat.Block
}

// growthIndex finds the state of the bindings that grow, by inside address.
type growthIndex map[netip.Addr]*growth

func (g growthIndex) of(inside netip.Addr) *growth {
	if g[inside] == nil {
		g[inside] = &growth{}
	}
	return g[inside]
}

// Growths are the changes of a Machine that give subscribers blocks more and less.
type Growths struct{ m *Machine }

// Growths returns the Machine's Growths.
func (m *Machine) Growths() Growths { return Growths{m} }

// Resizable returns the blocks of the binding of an address, and the range of new sessions,
// if its ports may be looked at now: its gate is open, and no executor works for it.
func (x Growths) Resizable(inside netip.Addr) (group string, b nat.Blocks, r nat.Block, ok bool) {
	s := x.m.slots.at(inside)
	if s == nil || s.busy || s.stray || s.phase != Open || !s.online || s.tenure != s.boundTenure {
		return "", b, r, false
	}
	live, ok := x.m.engine.Live(s.packed.Group(), inside)
	return s.packed.Group(), live.Blocks, s.block, ok && live.State == nat.Active
}

// Busy reports whether the ports of an address cannot be looked at only because an executor works
// for it.
func (x Growths) Busy(inside netip.Addr) bool {
	s := x.m.slots.at(inside)
	return s != nil && s.busy && !s.stray && s.online
}

// Bound returns the binding of an address with an open gate, and the range of new sessions,
// which may not be programmed yet.
func (x Growths) Bound(inside netip.Addr) (b nat.Binding, r nat.Block, ok bool) {
	s := x.m.slots.at(inside)
	if s == nil || s.stray || s.phase != Open || !s.online || s.tenure != s.boundTenure {
		return b, r, false
	}
	b, ok = x.m.engine.Live(s.packed.Group(), inside)
	return b, s.block, ok && b.State == nat.Active
}

// Used takes the ports in use of a binding, as [Growths.Resizable] returned it. It may give
// the subscriber a block more, choose another range for new sessions, or begin to give a
// block back. It returns how many sessions may begin before the next look, and whether the
// subscriber needs more ports and gets none: then call [Growths.Narrow].
func (x Growths) Used(inside netip.Addr, u *PortUse, now time.Time) (next int, refused bool) {
	x.m.now = now
	_, b, r, ok := x.Resizable(inside)
	if !ok || b != u.blocks {
		return 1, false
	}
	s := x.m.slots.at(inside)
	switch used := u.in(r); {
	case used >= HighWater(r.Size()):
	case x.Narrowed(inside) && float64(used) >= narrowLow*float64(r.Size()):
		return 1, true
	default:
		x.widen(inside)
		x.vacate(s, b, u)
		return x.untilHigh(s, u), false
	}
	x.KeepBlocks(inside)
	for whole := range b.Ranges {
		if whole != r && whole.Contains(r.Outside, r.First) {
			x.turn(s, whole) // a part of it was about to be given back
			return x.untilHigh(s, u), false
		}
	}
	best := roomiest(b, u)
	if best != r && u.in(best) <= best.Size()/2 {
		x.turn(s, best)
		return x.untilHigh(s, u), false
	}
	if x.grow(s, r) {
		return x.untilHigh(s, u), false
	}
	if best != r && u.free(best) > u.free(r)+b.Size()/8 {
		x.turn(s, best)
	}
	return max(1, b.Size()/8), true
}

// KeepBlocks takes that more ports of a binding are in use than would do with a block less.
func (x Growths) KeepBlocks(inside netip.Addr) {
	if g := x.m.growths[inside]; g != nil {
		g.low, g.part = time.Time{}, nil
	}
}

// untilHigh returns how many sessions may begin before the slot's range is at highWater.
func (x Growths) untilHigh(s *Slot, u *PortUse) int {
	return max(1, HighWater(s.block.Size())-u.in(s.block))
}

// roomiest returns the range of the blocks with the most ports that no session uses.
func roomiest(b nat.Blocks, u *PortUse) (best nat.Block) {
	for r := range b.Ranges {
		if best == (nat.Block{}) || u.free(r) > u.free(best) {
			best = r
		}
	}
	return best
}

// turn makes a range of the binding that of new sessions. It is not stored: a start takes
// the newest block, and looks again.
func (x Growths) turn(s *Slot, r nat.Block) {
	x.widen(s.packed.Inside())
	s.block, s.resize = r, turned
	x.m.step(s)
}

// grow gives the slot a block more, stored before it is programmed, and reports whether it
// did. Present sessions keep their ports: conntrack translates them.
func (x Growths) grow(s *Slot, within nat.Block) bool {
	group, inside := s.packed.Group(), s.packed.Inside()
	g, err := x.m.engine.Grow(group, inside, within, x.m.now)
	switch {
	case errors.Is(err, lsn.ErrMaxBlocks):
		x.m.growths.of(inside).most = true
		if b, _ := x.m.engine.Live(group, inside); b.Len() > 1 { // else its group has one for each
			x.refuse(s, inspect.GrowthMaxBlocks)
		}
		return false
	case errors.Is(err, lsn.ErrExhausted):
		x.m.growths.of(inside).most = false
		x.refuse(s, inspect.GrowthNoRoom)
		return false
	case err != nil:
		x.m.out.Fault("one block more", s.Key(), err)
		return false
	}
	switch whole := g.Range(); {
	case !g.InPlace():
		s.resize = grewApart
	case whole.Contains(within.Outside, within.First):
		s.resize = grewInPlace
	default:
		s.resize = grewBeside
	}
	s.block = g.Range()
	x.m.growths.of(inside)
	x.widen(inside)
	x.m.work(s)
	x.m.store(Write{Binding: g.Binding, Slot: s})
	if g.Regained.Outside.IsValid() {
		x.m.store(Write{Binding: g.Regained, Remove: true})
	}
	return true
}

// growthOf are the growths that an opened gate completes.
var growthOf = map[resizing]inspect.Growth{grewInPlace: inspect.GrowthInPlace, grewBeside: inspect.GrowthInPlace, grewApart: inspect.GrowthApart}

// refuse reports, once a minute, that a subscriber at highWater gets no further block. Its
// sessions go on, and new ones find what ports are left.
func (x Growths) refuse(s *Slot, why inspect.Growth) {
	g := x.m.growths.of(s.packed.Inside())
	if !g.refused.IsZero() && x.m.now.Sub(g.refused) < refusedEvery {
		return
	}
	g.refused = x.m.now
	x.m.out.Emit(Transition{Kind: inspect.EventBlockRefused, At: x.m.now, Slot: s, Growth: why})
}

// vacate takes the next step towards giving back the newest of several blocks, if the
// ports without it have sufficed for some time: first no new session gets a port of it, and
// once it has none the kernel is asked for a proof of that.
func (x Growths) vacate(s *Slot, b nat.Blocks, u *PortUse) {
	if b.Len() == 1 {
		return
	}
	g := x.m.growths.of(s.packed.Inside())
	older := b.Older()
	if u.all() > LowWater(b) {
		g.low, g.part = time.Time{}, nil
		return
	}
	if g.low.IsZero() {
		g.low = x.m.now
	}
	newest := b.Newest()
	switch {
	case x.m.now.Sub(g.low) < lowTime:
	case s.block.Contains(newest.Outside, newest.First):
		x.turn(s, roomiest(older, u))
	case u.in(newest) == 0 && g.part == nil:
		g.part = &Part{Inside: s.packed.Inside(), Block: newest}
		x.m.out.AskVacant(g.part)
	}
}

// Vacated reports whether the kernel certainly has no session in a block, and takes the
// ports of new sessions from others: then the block goes into its hold.
func (x Growths) Vacated(p *Part, vacant bool, now time.Time) {
	x.m.now = now
	g := x.m.growths[p.Inside]
	if g == nil || g.part != p {
		return
	}
	g.part = nil
	group, b, r, ok := x.Resizable(p.Inside)
	if !vacant || !ok || b.Newest() != p.Block || r.Contains(p.Block.Outside, p.Block.First) {
		return
	}
	s := x.m.slots.at(p.Inside)
	left, part, err := x.m.engine.Shrink(group, p.Inside, now)
	if err != nil {
		x.m.out.Fault("give a block back", s.Key(), err)
		return
	}
	g.low = time.Time{}
	x.m.store(Write{Binding: part}) // before the binding loses it, so that a start finds one or both
	x.m.store(Write{Binding: left, Left: now})
	x.m.touch(group, p.Inside)
	x.m.out.Emit(Transition{Kind: inspect.EventBlockReturned, At: now, Slot: s, Growth: inspect.GrowthReturned})
	if part.HoldUntil.Before(x.m.holdsSeen) {
		x.m.out.WakeTimers()
	}
}
