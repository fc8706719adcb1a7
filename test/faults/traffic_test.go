package faults

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/netlab"
)

// nextPort returns an inside port that was not used lately.
func (w *world) nextPort() uint16 { return 10_000 + uint16(w.udpPorts.Add(1)%20_000) }

// send sends datagrams that nobody answers: from a port of its own each, or all from the first
// one, to ports of their own.
func (w *world) send(l *line, n int, onePort bool) error {
	from, to := netip.AddrPortFrom(l.inside, w.nextPort()), netip.AddrPortFrom(answering, sinkPort)
	for i := range n {
		switch {
		case onePort:
			to = netip.AddrPortFrom(answering, sinkPort+100+uint16(i))
		case i > 0:
			from = netip.AddrPortFrom(l.inside, w.nextPort())
		}
		if err := w.Lab.Subscriber.Send(netlab.Packet{Protocol: netlab.UDP, Source: from, Destination: to}); err != nil {
			return err
		}
	}
	return nil
}

// pickOnline draws an online line of a group, that no operation of the round touches.
func (w *world) pickOnline(g *groupSpec, touched map[*line]bool) *line {
	lines := slices.DeleteFunc(w.model.linesOf(g), func(l *line) bool { return l.online == nil || touched[l] })
	if len(lines) == 0 {
		return nil
	}
	return lines[w.flowRNG.IntN(len(lines))]
}

// browse has subscribers open sessions: so many that a binding grows, or that a limit is
// reached. Whatever is broken meanwhile, some of them may fail.
func (w *world) browse(touched map[*line]bool) error {
	var errs []error
	if l := w.pickOnline(growingGroup, touched); l != nil {
		errs = append(errs, w.send(l, 4+w.flowRNG.IntN(40), false))
	}
	if l := w.pickOnline(limitedGroup, touched); l != nil {
		if w.flowRNG.IntN(2) == 0 {
			errs = append(errs, w.send(l, limitedGroup.limits.udpPorts+2, false))
		} else {
			errs = append(errs, w.send(l, limitedGroup.limits.sessions, true))
		}
	}
	return errors.Join(errs...)
}

// growths: a binding has several blocks only in a group where it may, beginning with one that
// stays; and it has one more where its ports are nearly all in use, if there is room (NAT-35).
func (c *comparison) growths() {
	most := 0
	for inside, b := range c.live() {
		g := groupAt(inside)
		if g == nil {
			continue
		}
		most = max(most, len(b.Blocks))
		if len(b.Blocks) > max(1, g.maxBlocks) {
			c.differ("%v has more than %d blocks", b, max(1, g.maxBlocks))
		}
		if g.maxBlocks > len(b.Blocks) && b.is("ACTIVE") && c.freeOf(g) > 0 {
			if used := c.portsInUse(b); used >= lifecycle.HighWater(len(b.Blocks)*g.blockSize) {
				c.differ("%v uses %d ports, and should have a block more (NAT-35)", b, used)
			}
		}
	}
	c.s.mostBlocks = most
}

// freeOf returns the number of blocks that subscribers of the group may get.
func (c *comparison) freeOf(g *groupSpec) (free int) {
	for _, p := range c.s.pools {
		if p.Group == g.name && !p.Draining {
			free += p.Free
		}
	}
	return free
}

// portsInUse returns the number of outside ports with sessions of UDP.
func (c *comparison) portsInUse(b *binding) int {
	ports := map[uint16]bool{}
	for _, e := range c.s.entries {
		if e.inside.Addr() == b.Inside && e.protocol == "udp" && b.covers(e.seen) {
			ports[e.seen.Port()] = true
		}
	}
	return len(ports)
}

// fixedBlocks: in a deterministic group each binding has the block of the formula (NAT-38).
func (c *comparison) fixedBlocks() {
	for i := range c.s.bindings {
		b := &c.s.bindings[i]
		if b.Group != fixedGroup.name {
			continue
		}
		if outside, block := fixedGroup.formula(b.Inside); b.Outside != outside || !slices.Equal(b.Blocks, []blockPorts{block}) {
			c.differ("%v, want %v:%v by the formula (NAT-38)", b, outside, block)
		}
	}
}

// limited: who has reached a limit is in its set, and who is far below it is not (NAT-28,
// NAT-32).
func (c *comparison) limited() {
	lim := limitedGroup.limits
	for inside, b := range c.live() {
		if b.Group != limitedGroup.name || !b.is("ACTIVE") {
			continue
		}
		sessions, ports := c.begun(inside)
		c.atLimit(inside, "limit_sessions", sessions, lim.sessions)
		c.atLimit(inside, "limit_udp_ports", ports, lim.udpPorts)
	}
}

// begun returns the number of sessions that the address began, and of its ports of UDP.
func (c *comparison) begun(inside netip.Addr) (sessions, udpPorts int) {
	ports := map[uint16]bool{}
	for _, e := range c.s.entries {
		if e.inside.Addr() != inside || e.inbound {
			continue
		}
		sessions++
		if e.protocol == "udp" {
			ports[e.inside.Port()] = true
		}
	}
	return sessions, len(ports)
}

// atLimit compares a subscriber's use of a limit with the set of those at it, which an eighth
// less leaves.
func (c *comparison) atLimit(inside netip.Addr, set string, used, limit int) {
	in := slices.Contains(c.s.named[set], inside.String())
	if used >= limit && !in || in && used < limit-limit/8-1 {
		c.differ("%s uses %d of %d, and is in %s: %t (NAT-28)", inside, used, limit, set, in)
	}
}

// named: no set or map names an inside address without a live binding, and learned mappings
// are of a block of their subscriber (NAT-40). So no removal leaves an element.
func (c *comparison) named() {
	live := c.live()
	for set, elements := range c.s.named {
		if set == "inside_prefixes" || set == "group_timeouts" || set == "port_timeouts" || set == "ungated" {
			continue
		}
		for _, e := range elements {
			parts := strings.Fields(e)
			for i, part := range parts {
				inside, err := netip.ParseAddr(part)
				if err != nil || !insidePrefix.Contains(inside) {
					continue
				}
				b, ok := live[inside]
				if !ok {
					c.differ("%s has element %q of an address without a binding", set, e)
				} else if set == "eif" && !b.covers(endpoint(parts[1:])) || set == "bib" && !b.covers(endpoint(parts[i+2:])) {
					c.differ("%s has element %q outside of %v (NAT-40)", set, e, b)
				}
			}
		}
	}
}

// endpoint reads an address and a port; the zero value for anything else.
func endpoint(parts []string) netip.AddrPort {
	if len(parts) < 2 {
		return netip.AddrPort{}
	}
	a, _ := netip.ParseAddr(parts[0])
	port, _ := strconv.ParseUint(parts[1], 10, 16)
	return netip.AddrPortFrom(a, uint16(port))
}

// refuses checks that subscribers at their limit of sessions begin none: those that they have,
// and others, are checked as any flows (NAT-32). It returns without a result if the sessions
// run out meanwhile.
func (w *world) refuses(ctx context.Context, s *snapshot) error {
	for _, set := range []string{"limit_sessions", "limit_udp_ports"} {
		for _, text := range s.named[set] {
			inside, err := netip.ParseAddr(text)
			i := slices.IndexFunc(w.model.lines, func(l *line) bool { return l.inside == inside })
			if err != nil || i < 0 {
				continue
			}
			from, to := netip.AddrPortFrom(inside, w.nextPort()), netip.AddrPortFrom(answering, sinkPort+50)
			if err := w.Lab.Subscriber.Send(netlab.Packet{Protocol: netlab.UDP, Source: from, Destination: to}); err != nil {
				return err
			}
			var after snapshot
			if err := errors.Join(w.lookConntrack(ctx, &after), w.lookNft(ctx, &after)); err != nil {
				return err
			}
			began := slices.ContainsFunc(after.entries, func(e entry) bool { return e.inside == from })
			if began && slices.Contains(after.named[set], text) {
				return fmt.Errorf("%s is in %s, and began a session (NAT-32)", inside, set)
			}
			w.report.limited.Add(1)
		}
	}
	return nil
}

// exceedRate sends as fast as it can: no more sessions begin than the rate of the group's
// limits (NAT-28).
func (w *world) exceedRate(ctx context.Context, s *snapshot) error {
	l := w.pickOnline(limitedGroup, nil)
	if l == nil {
		return nil
	}
	c := &comparison{world: w, s: s}
	b, ok := c.live()[l.inside]
	if used, _ := c.begun(l.inside); !ok || !b.is("ACTIVE") || used > 4 {
		return nil
	}
	const packets = 60
	began := time.Now()
	if err := w.send(l, packets, true); err != nil {
		return err
	}
	took := time.Since(began)
	var after snapshot
	if err := w.lookConntrack(ctx, &after); err != nil {
		return err
	}
	n := 0
	for _, e := range after.entries {
		older := slices.ContainsFunc(s.entries, func(o entry) bool { return o.id == e.id }) // of a burst in this round
		if e.inside.Addr() == l.inside && e.remote.Port() >= sinkPort+100 && !older {
			n++
		}
	}
	rate := limitedGroup.limits.rate
	if most := 16 + int(took.Seconds()*float64(rate)) + 2; n > most || n == 0 {
		return fmt.Errorf("%s began %d sessions in %v, at a rate of %d (NAT-28)", l.inside, n, took, rate)
	}
	return nil
}
