package session

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/queue"
)

// pinKernel pins inside ports to blocks.
type pinKernel interface {
	SetPins(ctx context.Context, inside netip.Addr, pins []nat.Pin) error
	Pins(inside netip.Addr) []nat.Pin
	Pinned() []netip.Addr
	Ports(inside netip.Addr, protocol uint8) []uint16 // with sessions, in order
	SettledSessionsOf(ctx context.Context, inside netip.Addr, yield func(nftnat.Session) error) (sure bool, err error)
}

// portPins pin the inside ports of subscribers with several blocks whose sessions have ports
// outside of the range of new ones: so an inside port keeps its mapping towards new
// destinations (RFC 4787 REQ-1) when that range moves. Ports are pinned before it moves, and
// again after it, for those that began a session meanwhile. A pin goes with the last session
// of its port.
//
// They pin the remote endpoints, too, to which new sessions get ports of a part of the range, and
// then the inside ports with sessions to others outside of that part.
//
// Inside ports of groups with learned mappings need no pins, and the kernel makes none.
type portPins struct {
	*sharedState
	kernel pinKernel
	work   *executors
	moves  *queue.Queue[lifecycle.Work] // ranges of new sessions that are to be programmed

	keeping sync.Mutex // one change of pins, or return of a block, at a time; taken before sharedState.mu
}

// run programs the ranges that move.
func (p *portPins) run(ctx context.Context) error {
	var entries []nat.Entry
	for batch := []lifecycle.Work(nil); ; {
		var err error
		if batch, err = p.moves.Dequeue(ctx, batch); err != nil {
			return err
		}
		for i := range batch {
			p.keep(ctx, batch[i].Inside)
			if entries, err = p.work.apply(ctx, batch[i:i+1], entries, p.life.Programmed); err != nil {
				return err
			}
			p.keep(ctx, batch[i].Inside)
		}
	}
}

// keep pins the inside ports of a subscriber that have a session outside of the range of new
// ones, and no others.
func (p *portPins) keep(ctx context.Context, inside netip.Addr) {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	b, r, ok := p.bound(inside)
	parts := p.parts(inside)
	if !ok || b.Len() == 1 && len(parts) == 0 {
		p.set(ctx, inside, nil)
		return
	}
	pins, err := p.find(ctx, b, r, parts)
	if err != nil {
		p.log.Warn("look for ports to pin", "inside", inside, "error", err)
		return
	}
	p.set(ctx, inside, pins)
	if now, _, ok := p.bound(inside); !ok || now.Blocks != b.Blocks || !now.AllocatedAt.Equal(b.AllocatedAt) {
		p.set(ctx, inside, nil) // they may be of the holder before
	}
}

func (p *portPins) bound(inside netip.Addr) (nat.Binding, nat.Block, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.life.Growths().Bound(inside)
}

// parts are the pins of remote endpoints.
func (p *portPins) parts(inside netip.Addr) []nat.Pin {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.life.Growths().Parts(inside)
}

// find lists the pins, with those of remote endpoints. An inside port with sessions in several
// blocks is pinned to the oldest.
func (p *portPins) find(ctx context.Context, b nat.Binding, r nat.Block, parts []nat.Pin) (pins []nat.Pin, err error) {
	type port struct {
		protocol uint8
		nat.Port
	}
	at := map[port]int{}   // the block of each port, by its number
	out := map[port]bool{} // it has a session with a port that new ones do not get
	blocks := slices.Collect(b.All())
	_, err = p.kernel.SettledSessionsOf(ctx, b.Inside, func(s nftnat.Session) error {
		if s.Direction != nat.Outbound || s.Protocol != unix.IPPROTO_TCP && s.Protocol != unix.IPPROTO_UDP {
			return ctx.Err()
		}
		i := slices.IndexFunc(blocks, func(x nat.Block) bool { return x.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port())) })
		of := port{s.Protocol, nat.Port(s.Inside.Port())}
		if old, seen := at[of]; i >= 0 && (!seen || i < old) {
			at[of] = i
		}
		out[of] = out[of] || slices.ContainsFunc(parts, func(part nat.Pin) bool {
			return part.Protocol == s.Protocol && part.Remote != s.Remote && !part.Block.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port()))
		})
		return ctx.Err()
	})
	for of, i := range at {
		if out[of] || !r.Contains(blocks[i].Outside, blocks[i].First) {
			pins = append(pins, nat.Pin{Protocol: of.protocol, Port: of.Port, Block: blocks[i]})
		}
	}
	return append(pins, parts...), err
}

func (p *portPins) set(ctx context.Context, inside netip.Addr, pins []nat.Pin) {
	if len(pins) == 0 && len(p.kernel.Pins(inside)) == 0 {
		return
	}
	if err := p.kernel.SetPins(ctx, inside, pins); err != nil && ctx.Err() == nil {
		p.log.Warn("pin ports", "inside", inside, "entries", len(pins), "error", err)
	}
}

// thin takes away the pins of ports without a session, and those that are not needed any more.
func (p *portPins) thin(ctx context.Context) {
	for _, inside := range p.kernel.Pinned() {
		if ctx.Err() != nil {
			return
		}
		p.thinOne(ctx, inside)
	}
}

func (p *portPins) thinOne(ctx context.Context, inside netip.Addr) {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	b, _, ok := p.bound(inside)
	pins, parts := p.kernel.Pins(inside), p.parts(inside)
	live := map[uint8][]uint16{
		unix.IPPROTO_TCP: p.kernel.Ports(inside, unix.IPPROTO_TCP),
		unix.IPPROTO_UDP: p.kernel.Ports(inside, unix.IPPROTO_UDP),
	}
	kept := slices.DeleteFunc(slices.Clone(pins), func(x nat.Pin) bool {
		if x.Remote.IsValid() {
			return !ok || !slices.Contains(parts, x)
		}
		_, used := slices.BinarySearch(live[x.Protocol], uint16(x.Port))
		return !ok || !used || !b.Has(x.Block)
	})
	if len(kept) < len(pins) {
		p.set(ctx, inside, kept)
	}
}
