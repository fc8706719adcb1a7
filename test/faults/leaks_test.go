package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/sessiond/sessiond/internal/netlab"
)

// leakWatch sees all that arrives on the internet (I3).
type leakWatch struct {
	capture *netlab.Capture
}

// leakPort is the port to which packets of addresses that are not online go.
const leakPort = 7002

func (w *world) watchLeaks() (err error) {
	if w.leaks.capture, err = w.Lab.Internet.Capture("r0"); err == nil {
		w.Lab.Own(w.leaks.capture)
	}
	return err
}

// trespass sends packets from addresses that are not online, and do not come online in this
// round.
func (w *world) trespass(touched map[*line]bool) error {
	for _, l := range w.model.lines {
		if l.online != nil || touched[l] || w.bound[l.inside] || w.flowRNG.IntN(3) > 0 {
			continue
		}
		if err := w.sendLeak(l.inside); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) sendLeak(inside netip.Addr) error {
	from := netip.AddrPortFrom(inside, w.nextPort())
	return w.Lab.Subscriber.Send(netlab.Packet{Protocol: netlab.UDP, Source: from, Destination: netip.AddrPortFrom(answering, leakPort)})
}

// noLeaks: no packet arrived from an inside address, but of sessions without NAT, and none of
// an address that is not online.
func (w *world) noLeaks() error {
	var errs []error
	for _, p := range w.leaks.capture.Packets() {
		if p.Outgoing {
			continue
		}
		from, to := p.Source.Addr(), p.Destination
		plain := to.Addr() == plainHost && growingGroup.inside.Contains(from)
		if insidePrefix.Contains(from) && !plain || to.Port() == leakPort {
			errs = append(errs, fmt.Errorf("a packet of protocol %d from %v arrived at %v (I3)", p.Protocol, p.Source, to))
		}
	}
	w.leaks.capture.Clear()
	return errors.Join(errs...)
}

// A drop is a line of `sessionctl -o json drops`.
type drop struct {
	Reason    string `json:"reason"`
	Direction string `json:"direction"`
	Packets   uint64 `json:"packets,string"`
}

// countDrops sends packets from an address that is not online. The counters of drops rise by
// their number, for the right reason and in sum: no other packets are dropped at rest.
func (w *world) countDrops(ctx context.Context) error {
	l := w.offlineLine()
	if l == nil {
		return nil
	}
	before, err := w.lastDrops(ctx)
	if err != nil {
		return err
	}
	const packets = 5
	for range packets {
		if err := w.sendLeak(l.inside); err != nil {
			return err
		}
	}
	var after map[string]uint64
	err = w.Until(ctx, "the packets to be counted as drops", func() (_ bool, err error) {
		after, err = w.drops(ctx)
		return after["no_gate out"]-before["no_gate out"] >= packets, err
	})
	if err != nil {
		return err
	}
	rise := map[string]uint64{}
	for reason, n := range after {
		if n != before[reason] {
			rise[reason] = n - before[reason]
		}
	}
	if len(rise) != 1 || rise["no_gate out"] != packets {
		return fmt.Errorf("%d packets of %v were dropped, counted are %v", packets, l.inside, rise)
	}
	return nil
}

// offlineLine returns a line without a session, binding and flow.
func (w *world) offlineLine() *line {
	for _, l := range w.model.lines {
		if l.online == nil && !w.bound[l.inside] {
			return l
		}
	}
	return nil
}

// lastDrops returns the counters once they stand still: the ends of flows that were just closed may
// be on their way.
func (w *world) lastDrops(ctx context.Context) (last map[string]uint64, err error) {
	err = w.Until(ctx, "the last drops to be counted", func() (bool, error) {
		now, err := w.drops(ctx)
		still := maps.Equal(now, last)
		last = now
		return still, err
	})
	return last, err
}

// drops returns the counters by reason and direction.
func (w *world) drops(ctx context.Context) (map[string]uint64, error) {
	out, err := w.Daemon.Ctl(ctx, "-o", "json", "drops")
	if err != nil {
		return nil, err
	}
	list, err := decodeLines[drop](out)
	all := map[string]uint64{}
	for _, d := range list {
		all[d.Reason+" "+d.Direction] = d.Packets
	}
	return all, err
}
