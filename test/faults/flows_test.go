package faults

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
)

const (
	wantFlows   = 10                     // live at a time, in each world
	passesSoon  = 8 * time.Second        // TCP has to retransmit the packets that a fault dropped
	staysSilent = 400 * time.Millisecond // time in which a dead flow must be silent
)

// A flow is the traffic of one subscriber: a TCP connection that stays, a UDP socket's
// mapping, and an ICMP identifier.
type flow struct {
	line    *line
	session *session
	block   binding
	tcp     *netlab.Flow
	entry   string // conntrack's id of the connection
	udp     netip.AddrPort
	udpSeen netip.AddrPort
	over    bool // its session was seen to end; the session may come back, the flow does not
}

func (f *flow) String() string {
	return fmt.Sprintf("flow %v of %s/%s", f.tcp.Inside.Local(), f.session.user, f.session.id)
}

// live reports whether the flow's session is still online.
func (f *flow) live() bool { return !f.over && f.line.online == f.session }

// openFlows opens flows of subscribers that have a block, until there are enough.
func (w *world) openFlows(ctx context.Context, s *snapshot) error {
	c := &comparison{world: w, s: s}
	live := c.live()
	lines := slices.Clone(w.model.lines)
	w.flowRNG.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	for _, l := range lines {
		if len(w.flows) >= wantFlows {
			break
		}
		b, ok := live[l.inside]
		if !ok || !b.is("ACTIVE") || slices.ContainsFunc(w.flows, func(f *flow) bool { return f.line == l }) {
			continue
		}
		f, err := w.openFlow(ctx, l, *b)
		if err != nil {
			return fmt.Errorf("open a flow of %s: %w", l.inside, err)
		}
		w.flows = append(w.flows, f)
	}
	return w.noteEntries(ctx)
}

func (w *world) openFlow(ctx context.Context, l *line, b binding) (*flow, error) {
	ctx, cancel := context.WithTimeout(ctx, passesSoon)
	defer cancel()
	tcp, err := w.Lab.OpenFlow(ctx, netip.AddrPortFrom(l.inside, 0))
	if err != nil {
		return nil, err
	}
	f := &flow{line: l, session: l.online, block: b, tcp: tcp}
	f.udp = netip.AddrPortFrom(l.inside, 10_000+uint16(w.udpPorts.Add(1)%20_000))
	if f.udpSeen, err = w.Lab.Subscriber.AskUDP(ctx, f.udp, w.echo.Addr()); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	if !b.covers(tcp.Source()) || !b.covers(f.udpSeen) {
		err = fmt.Errorf("seen as %v and %v, want within %s", tcp.Source(), f.udpSeen, b.block())
	}
	return f, err
}

// noteEntries records the identifiers of new flows' entries.
func (w *world) noteEntries(ctx context.Context) error {
	var s snapshot
	if err := w.lookConntrack(ctx, &s); err != nil {
		return err
	}
	for _, f := range w.flows {
		if f.entry != "" {
			continue
		}
		for _, e := range s.entries {
			if f.owns(&e) {
				f.entry = e.id
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
	local, remote := f.tcp.Inside.Local(), f.tcp.Inside.Remote()
	return e.inside == local.Addr() && strings.Contains(e.text, "tcp") &&
		strings.Contains(e.text, fmt.Sprintf(" sport=%d dport=%d ", local.Port(), remote.Port()))
}

// probeInnocent checks that all flows of untouched sessions pass, also while sessiond or
// Redis is down (I9).
func (w *world) probeInnocent(touched map[*line]bool) error {
	var innocent []*flow
	for _, f := range w.flows {
		if f.live() && !touched[f.line] {
			innocent = append(innocent, f)
		}
	}
	return w.eachFlow(innocent, func(f *flow) error {
		if out, in := f.tcp.Probe(passesSoon); !out || !in {
			return fmt.Errorf("%v passes outbound %t, inbound %t; want both", f, out, in)
		}
		return nil
	})
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
	c := &comparison{world: w, s: s}
	live := c.live()
	err := w.eachFlow(w.flows, func(f *flow) error {
		f.over = !f.live()
		switch b := live[f.line.inside]; {
		case !f.over:
			return w.goesOn(ctx, f, ids)
		case !w.model.removal && isOffline(f.line):
			if out, in := f.tcp.Probe(passesSoon); !out || !in || b == nil || !b.is("DRAINING") {
				return fmt.Errorf("%v should drain (DEL-11), is %v and passes outbound %t, inbound %t", f, b, out, in)
			}
			return nil
		case ids[f.entry]:
			return fmt.Errorf("%v ended, but its conntrack entry stands", f)
		case b != nil && b.block() == f.block.block():
			return nil // the same subscriber with the same block: the ports may come out the same
		}
		if out, in := f.tcp.Probe(staysSilent); out || in {
			return fmt.Errorf("%v ended, but passes outbound %t, inbound %t", f, out, in)
		}
		return nil
	})
	return errors.Join(err, w.closeEnded(live))
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
	var errs []error
	w.flows = slices.DeleteFunc(w.flows, func(f *flow) bool {
		if b := live[f.line.inside]; f.live() || b != nil && b.is("DRAINING") && !w.model.removal {
			return false
		}
		errs = append(errs, f.tcp.Close())
		return true
	})
	return errors.Join(errs...)
}

// dropFlows closes the flows of lines whose state is uncertain; nil means all.
func (w *world) dropFlows(of map[*line]bool) error {
	var errs []error
	w.flows = slices.DeleteFunc(w.flows, func(f *flow) bool {
		if of != nil && !of[f.line] {
			return false
		}
		errs = append(errs, f.tcp.Close())
		return true
	})
	return errors.Join(errs...)
}
