package faults

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/netlab"
)

const (
	passesSoon  = 8 * time.Second        // TCP has to retransmit the packets that a fault dropped
	staysSilent = 400 * time.Millisecond // time in which a dead flow must be silent
	retryFlow   = 50 * time.Millisecond  // before a flow that a limit refused is opened again
)

// A flow is the traffic of one subscriber: a TCP connection that stays, a UDP socket's
// mapping, and an ICMP identifier.
type flow struct {
	line     *line
	session  *session
	block    binding
	tcp      *netlab.Flow
	entry    string // conntrack's id of the connection
	udp      netip.AddrPort
	udpSeen  netip.AddrPort // invalid in a group whose limits UDP may have reached
	cone     *coneEnd       // in a group of full cone
	mapped   *mapping       // through which somebody outside opened the connection; nil for none
	unmapped bool           // its mapping was seen to be gone, or elsewhere
	over     bool           // its session, or its mapping there, was seen to end; these may come back, the flow does not
}

func (f *flow) String() string {
	if f.mapped != nil {
		return fmt.Sprintf("flow through %v to %s of %s/%s", f.mapped, f.line.inside, f.session.user, f.session.id)
	}
	return fmt.Sprintf("flow %v of %s/%s", f.tcp.Inside.Local(), f.session.user, f.session.id)
}

// live reports whether the flow's session is still online, and its mapping stands.
func (f *flow) live() bool {
	return !f.over && f.line.online == f.session && (f.mapped == nil || !f.mapped.gone)
}

// openFlows opens flows of subscribers that have a block, until each group has enough.
func (w *world) openFlows(ctx context.Context, s *snapshot) error {
	c := w.compare(s)
	live := c.atRest
	lines := slices.Clone(w.model.lines)
	w.flowRNG.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	for _, l := range lines {
		n := 0
		for _, f := range w.flows {
			if f.line.group == l.group && f.mapped == nil {
				n++
			}
		}
		b, ok := live[l.inside]
		if n >= l.group.flows || !ok || !b.is("ACTIVE") || slices.ContainsFunc(w.flows, func(f *flow) bool { return f.line == l && f.mapped == nil }) || c.nearLimit(l) {
			continue
		}
		f, err := w.openFlow(ctx, l, *b)
		if err != nil {
			return fmt.Errorf("open a flow of %s: %w", l.inside, err)
		}
		w.flows = append(w.flows, f)
	}
	if err := w.openMappedFlows(ctx, c); err != nil {
		return err
	}
	return w.noteEntries(ctx)
}

func (w *world) openFlow(ctx context.Context, l *line, b binding) (*flow, error) {
	ctx, cancel := context.WithTimeout(ctx, passesSoon)
	defer cancel()
	tcp, err := w.Lab.OpenFlow(ctx, netip.AddrPortFrom(l.inside, 0))
	for l.group.limits != (limits{}) && errors.Is(err, unix.EHOSTUNREACH) { // a burst has reached a limit, and leaves it soon
		if err := clock.Sleep(ctx, retryFlow); err != nil {
			break
		}
		tcp, err = w.Lab.OpenFlow(ctx, netip.AddrPortFrom(l.inside, 0))
	}
	if err != nil {
		return nil, err
	}
	f := &flow{line: l, session: l.online, block: b, tcp: tcp}
	if !b.covers(tcp.Source()) {
		return nil, errors.Join(fmt.Errorf("seen as %v, want within %v", tcp.Source(), &b), tcp.Close())
	}
	if l.group.limits != (limits{}) {
		return f, nil
	}
	f.udp = netip.AddrPortFrom(l.inside, w.nextPort())
	if f.udpSeen, err = w.Lab.Subscriber.AskUDP(ctx, f.udp, w.echo.Addr()); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	if !b.covers(f.udpSeen) {
		err = fmt.Errorf("seen as %v, want within %v", f.udpSeen, &b)
	}
	if l.group.cone && err == nil {
		f.cone, err = w.openCone(ctx, l.inside)
	}
	if err == nil {
		err = w.passesPlain(ctx, f)
	}
	if err != nil {
		err = errors.Join(err, f.close())
	}
	return f, err
}

// passesPlain checks that a subscriber in a group without NAT towards plainHost is seen there
// by its inside address (NAT-29).
func (w *world) passesPlain(ctx context.Context, f *flow) error {
	if !f.line.group.noNAT || !f.udp.IsValid() {
		return nil
	}
	seen, err := w.Lab.Subscriber.AskUDP(ctx, f.udp, w.plain.Addr())
	if err == nil && seen != f.udp {
		err = fmt.Errorf("%v is seen as %v without NAT, want %v (NAT-29)", f, seen, f.udp)
	}
	return err
}

func (f *flow) close() error {
	errs := []error{f.tcp.Close()}
	if f.cone != nil {
		errs = append(errs, f.cone.socket.Close())
	}
	return errors.Join(errs...)
}

// nearLimit reports whether the subscriber could not open what a flow has.
func (c *comparison) nearLimit(l *line) bool {
	sessions, ports := c.begun(l.inside)
	lim := l.group.limits
	return lim.sessions > 0 && (sessions >= lim.sessions*3/4 || ports >= lim.udpPorts*3/4) ||
		slices.Contains(c.s.named["limit_sessions"], l.inside.String())
}

// noteEntries records the identifiers of new flows' entries, and how long those of subscribers
// with flows last.
func (w *world) noteEntries(ctx context.Context) error {
	var s snapshot
	if err := w.lookConntrack(ctx, &s); err != nil {
		return err
	}
	w.counts = map[*line][]time.Time{}
	for _, f := range w.flows {
		fresh := f.entry == ""
		w.counts[f.line] = nil
		for _, e := range s.entries {
			if e.inside.Addr() == f.line.inside {
				w.counts[f.line] = append(w.counts[f.line], time.Now().Add(e.expires))
			}
			if !fresh {
				continue
			}
			if f.owns(&e) {
				f.entry = e.id
			}
			if e.inside == f.udp && e.remote == w.echo.Addr() {
				if most := f.line.group.udpTimeout; e.expires > most || e.expires < most-passesSoon {
					return fmt.Errorf("%v: UDP expires in %v, want %v (NAT-05)", f, e.expires, most)
				}
			}
		}
		if f.entry == "" {
			return fmt.Errorf("%v has no conntrack entry", f)
		}
	}
	return nil
}

// owns reports whether an entry is the connection's.
func (f *flow) owns(e *entry) bool {
	return e.protocol == "tcp" && e.inside == f.tcp.Inside.Local() && e.remote == f.tcp.Inside.Remote()
}

// probeInnocent checks that all flows of untouched sessions pass, also while sessiond or
// Redis is down (I9), and that others reach mapped ports. Where the table was disturbed, its
// learned mappings may be gone until the next packet from inside.
func (w *world) probeInnocent(touched map[*line]bool, disturbed bool) error {
	var innocent []*flow
	for _, f := range w.flows {
		if f.live() && !touched[f.line] && (f.mapped == nil || w.keeps(f.mapped, touched)) {
			innocent = append(innocent, f)
		}
	}
	var visits []*visit
	if !disturbed {
		visits = w.steady(touched)
	}
	return errors.Join(w.eachVisit(visits, w.isReached), w.eachFlow(innocent, func(f *flow) error {
		if out, in := f.tcp.Probe(passesSoon); !out || !in {
			return fmt.Errorf("%v passes outbound %t, inbound %t; want both", f, out, in)
		}
		if f.cone != nil && !disturbed && !w.reaches(f.cone, passesSoon) {
			return fmt.Errorf("%v: nobody else reaches %v (NAT-07)", f, f.cone.seen)
		}
		return nil
	}))
}

func (w *world) eachFlow(flows []*flow, do func(*flow) error) error {
	errs := make([]error, len(flows))
	var all sync.WaitGroup
	for i, f := range flows {
		all.Go(func() { errs[i] = do(f) })
	}
	all.Wait()
	w.report.flows.Add(int64(len(flows)))
	return errors.Join(errs...)
}

// settleFlows checks all flows at rest: those of online subscribers have the same conntrack
// entry and mapping as before; those of ended ones are silent.
func (w *world) settleFlows(ctx context.Context, s *snapshot) error {
	ids := map[string]bool{}
	for _, e := range s.entries {
		ids[e.id] = true
	}
	if err := w.closeYielding(); err != nil {
		return err
	}
	c := w.compare(s)
	var mappings error
	var beside sync.WaitGroup
	beside.Go(func() { mappings = w.settleMappings(ctx, c) })
	err := w.eachFlow(w.flows, func(f *flow) error {
		b := c.atRest[f.line.inside]
		f.unmapped = f.mapped != nil && (f.mapped.gone || c.holder(f.mapped) != b)
		f.over = !f.live() || f.unmapped
		switch {
		case !f.over:
			return w.goesOn(ctx, f, ids)
		case f.drains(w):
			if out, in := f.tcp.Probe(passesSoon); !out || !in || b == nil || !b.is("DRAINING") {
				return fmt.Errorf("%v should drain (DEL-11), is %v and passes outbound %t, inbound %t", f, b, out, in)
			}
			return nil
		case ids[f.entry]:
			return fmt.Errorf("%v ended, but its conntrack entry stands", f)
		case c.again(f):
			return nil
		}
		if f.cone != nil && w.reaches(f.cone, staysSilent) {
			return fmt.Errorf("%v ended, but others reach %v (NAT-07)", f, f.cone.seen)
		}
		if out, in := f.tcp.Probe(staysSilent); out || in {
			return fmt.Errorf("%v ended, but passes outbound %t, inbound %t", f, out, in)
		}
		return nil
	})
	beside.Wait()
	return errors.Join(err, mappings, w.closeEnded(c.atRest))
}

// drains reports whether the flow goes on although its session has ended.
func (f *flow) drains(w *world) bool {
	return !w.model.removal && isOffline(f.line) && !f.unmapped
}

// again reports whether the subscriber of a flow that ended has its outside port again: packets
// of the flow may pass, as those of a new one.
func (c *comparison) again(f *flow) bool {
	b := c.atRest[f.line.inside]
	if f.mapped != nil {
		return b != nil && slices.ContainsFunc(c.mappings, func(m *mapping) bool {
			return m.sameOutside(f.mapped) && m.sameInside(f.mapped) && c.holder(m) == b
		})
	}
	return b != nil && b.Outside == f.block.Outside && slices.ContainsFunc(b.Blocks, func(p blockPorts) bool { return slices.Contains(f.block.Blocks, p) })
}

func (w *world) goesOn(ctx context.Context, f *flow, ids map[string]bool) error {
	if out, in := f.tcp.Probe(passesSoon); !out || !in {
		return fmt.Errorf("%v passes outbound %t, inbound %t; want both", f, out, in)
	}
	if !ids[f.entry] {
		return fmt.Errorf("%v goes on, but with another conntrack entry than before", f)
	}
	ctx, cancel := context.WithTimeout(ctx, passesSoon)
	defer cancel()
	if err := w.passesPlain(ctx, f); err != nil {
		return err
	}
	if f.cone != nil {
		if err := w.keepsMapping(ctx, f.cone); err != nil {
			return fmt.Errorf("%v: %w", f, err)
		}
	}
	if !f.udpSeen.IsValid() {
		return nil
	}
	seen, err := w.Lab.Subscriber.AskUDP(ctx, f.udp, w.echo.Addr())
	if err != nil {
		return fmt.Errorf("%v: %w", f, err)
	}
	if seen != f.udpSeen {
		if !w.crowded {
			return fmt.Errorf("%v: UDP is seen as %v, was %v", f, seen, f.udpSeen)
		}
		f.udpSeen = seen // a full table evicts entries that are not assured
	}
	return nil
}

// closeEnded closes the flows of ended sessions, except draining ones.
func (w *world) closeEnded(live map[netip.Addr]*binding) error {
	return w.closeFlows(func(f *flow) bool {
		b := live[f.line.inside]
		return !f.live() && !(b != nil && b.is("DRAINING") && !w.model.removal && !f.unmapped)
	})
}

// dropFlows closes the flows of lines whose state is uncertain; nil means all.
func (w *world) dropFlows(of map[*line]bool) error {
	return w.closeFlows(func(f *flow) bool { return of == nil || of[f.line] })
}

// closeFlows closes the selected flows, and forgets them.
func (w *world) closeFlows(which func(*flow) bool) error {
	var errs []error
	w.flows = slices.DeleteFunc(w.flows, func(f *flow) bool {
		if !which(f) {
			return false
		}
		errs = append(errs, f.close())
		return true
	})
	return errors.Join(errs...)
}
