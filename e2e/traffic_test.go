//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/netlab"
)

// translated fails unless TCP, UDP and ping of the subscriber are seen from its block.
//
//	translated USER
func (s *scenario) translated(args []string) error {
	h, err := s.oneUser(args, "translated USER")
	if err != nil {
		return err
	}
	s.mu.Lock()
	b := s.blocks[args[0]]
	s.mu.Unlock()
	for _, network := range []string{"tcp4", "udp4"} {
		seen, err := h.ask(network, s.echo, 5*time.Second)
		if err != nil || !b.holds(seen) {
			return fmt.Errorf("%s of %s is seen from %v, %w; want %+v", network, args[0], seen, err, b)
		}
	}
	payload, err := h.ping(s.echo, 5*time.Second)
	if err != nil {
		return fmt.Errorf("ping of %s: %w", args[0], err)
	}
	if seen, err := s.pingSeen(payload); err != nil || !b.holds(seen) {
		return fmt.Errorf("ping of %s is seen from %v, %w; want %+v", args[0], seen, err, b)
	}
	return nil
}

// offline fails if a packet of the subscriber gets out: untranslated, or from what was its
// block.
//
//	offline USER
func (s *scenario) offline(args []string) error {
	h, err := s.oneUser(args, "offline USER")
	if err != nil {
		return err
	}
	s.mu.Lock()
	block, had := s.blocks[args[0]]
	s.mu.Unlock()
	own := func(a netip.AddrPort) bool { return had && block.holds(a) || !had && s.pool.Contains(a.Addr()) }
	c := s.startCapture(s.ts)
	defer c.Close()
	if err := s.tryNewFlows(h, args[0]); err != nil {
		return err
	}
	if _, err := h.ping(s.echo, 500*time.Millisecond); err == nil {
		return fmt.Errorf("ping of %s was answered", args[0])
	}
	return c.check(s, "traffic of "+args[0]+", who is offline", func(p netlab.Packet) bool {
		return p.Mentions(h.inside) || !p.Outgoing && own(p.Source)
	})
}

// noNewFlows fails if a new flow of the subscriber reaches the internet.
//
//	no-new-flows USER
func (s *scenario) noNewFlows(args []string) error {
	h, err := s.oneUser(args, "no-new-flows USER")
	if err != nil {
		return err
	}
	return s.tryNewFlows(h, args[0])
}

func (s *scenario) tryNewFlows(h subscriber, user string) error {
	for _, network := range []string{"tcp4", "udp4"} {
		if seen, err := h.ask(network, s.echo, 500*time.Millisecond); err == nil {
			return fmt.Errorf("%s of %s is seen from %v; want nothing", network, user, seen)
		}
	}
	return nil
}

// noLeak fails if the internet host got a packet with an inside address since the script
// began.
//
//	no-leak
func (s *scenario) noLeak(args []string) error {
	if err := usage(args, "no-leak", 0); err != nil {
		return err
	}
	return s.capture.check(s, "untranslated packets", func(p netlab.Packet) bool {
		for _, h := range s.subscribers {
			if p.Mentions(h.inside) {
				return true
			}
		}
		return false
	})
}

func (s *scenario) oneUser(args []string, text string) (subscriber, error) {
	if err := usage(args, text, 1); err != nil {
		return subscriber{}, err
	}
	return s.user(args[0])
}

// ask asks the echo server for the address and port at which it sees the subscriber.
func (h subscriber) ask(network string, echo netip.AddrPort, within time.Duration) (netip.AddrPort, error) {
	ctx, cancel := aMinute()
	defer cancel()
	return h.Ask(ctx, labapi.Probe{
		Network: network, From: netip.AddrPortFrom(h.inside, 0), To: echo, Milliseconds: int(within.Milliseconds()),
	})
}

func (h subscriber) ping(echo netip.AddrPort, within time.Duration) (payload string, err error) {
	ctx, cancel := aMinute()
	defer cancel()
	return h.Ping(ctx, labapi.Probe{
		From: netip.AddrPortFrom(h.inside, 77), To: echo, Milliseconds: int(within.Milliseconds()),
	})
}

// A flow is a long-lived TCP flow between two containers.
type flow struct {
	subscriber, internet     host
	atSubscriber, atInternet int // its number at each
	source                   netip.AddrPort
}

// flow opens a flow of a subscriber through the CGN, from its block.
//
//	flow NAME USER
func (s *scenario) flow(args []string) error {
	if err := usage(args, "flow NAME USER", 2); err != nil {
		return err
	}
	h, err := s.user(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := aMinute()
	defer cancel()
	before, err := s.internet.Flows(ctx)
	if err != nil {
		return err
	}
	opened, err := h.Open(ctx, labapi.Probe{From: netip.AddrPortFrom(h.inside, 0), To: s.flowsAt, Milliseconds: 5000})
	if err != nil {
		return fmt.Errorf("open flow %s: %w", args[0], err)
	}
	f := &flow{subscriber: h.host, internet: s.internet, atSubscriber: opened.ID}
	s.flows[args[0]] = f
	err = eventually(5*time.Second, func() error {
		all, err := s.internet.Flows(ctx)
		if err == nil && len(all) <= len(before) {
			err = fmt.Errorf("flow %s did not arrive", args[0])
		}
		if err == nil {
			f.atInternet, f.source = all[len(before)].ID, all[len(before)].Remote
		}
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.blocks[args[1]]; !b.holds(f.source) {
		return fmt.Errorf("flow %s is seen from %v; want %+v", args[0], f.source, b)
	}
	return s.check(args[0], 5*time.Second, true)
}

// alive fails unless the flow passes in both directions.
//
//	alive NAME
func (s *scenario) alive(args []string) error {
	if err := usage(args, "alive NAME", 1); err != nil {
		return err
	}
	return s.check(args[0], 5*time.Second, true)
}

// dead fails if the flow passes in any direction, for long enough that TCP retransmits.
//
//	dead NAME
func (s *scenario) dead(args []string) error {
	if err := usage(args, "dead NAME", 1); err != nil {
		return err
	}
	return s.check(args[0], 1500*time.Millisecond, false)
}

func (s *scenario) check(name string, limit time.Duration, want bool) error {
	f := s.flows[name]
	if f == nil {
		return usageError(fmt.Sprintf("no flow has the name %q", name))
	}
	if out, in := f.probe(limit); out != want || in != want {
		return fmt.Errorf("flow %s passes out: %v, in: %v; want %v for both", name, out, in, want)
	}
	return nil
}

// closeFlow resets the flow from the subscriber's side.
//
//	close NAME
func (s *scenario) closeFlow(args []string) error {
	if err := usage(args, "close NAME", 1); err != nil {
		return err
	}
	f := s.flows[args[0]]
	if f == nil {
		return usageError(fmt.Sprintf("no flow has the name %q", args[0]))
	}
	delete(s.flows, args[0])
	return f.end()
}

// probe sends a number each way at once and reports which arrived in time.
func (f *flow) probe(within time.Duration) (out, in bool) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { out = passes(ctx, f.subscriber, f.atSubscriber, f.internet, f.atInternet) })
	both.Go(func() { in = passes(ctx, f.internet, f.atInternet, f.subscriber, f.atSubscriber) })
	both.Wait()
	return out, in
}

func passes(ctx context.Context, from host, fromID int, to host, toID int) bool {
	n, err := from.Send(ctx, fromID)
	if err != nil {
		return false
	}
	for {
		all, err := to.Flows(ctx)
		if err != nil {
			return false
		}
		if all[toID-1].Received >= n {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end resets the flow from the subscriber's side.
func (f *flow) end() error {
	ctx, cancel := aMinute()
	defer cancel()
	return f.subscriber.End(ctx, f.atSubscriber)
}

// A stream sends numbers both ways on a flow, all the time.
type stream struct {
	quit   chan struct{}
	done   chan error
	probes int
}

// stream begins to send numbers both ways on a flow, until `unbroken`.
//
//	stream NAME
func (s *scenario) stream(args []string) error {
	if err := usage(args, "stream NAME", 1); err != nil {
		return err
	}
	f := s.flows[args[0]]
	if f == nil || s.streams[args[0]] != nil {
		return usageError(fmt.Sprintf("no flow without a stream has the name %q", args[0]))
	}
	st := &stream{quit: make(chan struct{}), done: make(chan error, 1)}
	s.streams[args[0]] = st
	go func() { st.done <- st.run(f) }()
	return nil
}

func (st *stream) run(f *flow) error {
	for ; ; st.probes++ {
		select {
		case <-st.quit:
			return nil
		default:
		}
		if out, in := f.probe(5 * time.Second); !out || !in {
			return fmt.Errorf("after %d numbers each way: out %v, in %v", st.probes, out, in)
		}
	}
}

func (st *stream) stop() error {
	close(st.quit)
	return <-st.done
}

// unbroken ends a stream. It fails unless every number arrived, and some did.
//
//	unbroken NAME
func (s *scenario) unbroken(args []string) error {
	if err := usage(args, "unbroken NAME", 1); err != nil {
		return err
	}
	st := s.streams[args[0]]
	if st == nil {
		return usageError(fmt.Sprintf("no stream has the name %q", args[0]))
	}
	delete(s.streams, args[0])
	if err := st.stop(); err != nil {
		return fmt.Errorf("stream %s: %w", args[0], err)
	}
	if st.probes == 0 {
		return errors.New("no number was sent")
	}
	s.ts.Logf("%d numbers each way", st.probes)
	return nil
}
