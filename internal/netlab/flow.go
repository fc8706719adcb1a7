package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Flow is a long-lived TCP flow through the CGN, with both its ends.
type Flow struct {
	Inside  *End // at the subscriber
	Outside *End // at the internet host
}

// OpenFlow opens a flow from a subscriber's address (port 0: any port) to a
// port of its own on the first remote. The lab closes it.
func (l *Lab) OpenFlow(ctx context.Context, from netip.AddrPort) (*Flow, error) {
	ln, err := l.Internet.Listen(ctx, netip.AddrPortFrom(l.Remotes[0], 0))
	if err != nil {
		return nil, fmt.Errorf("open flow: %w", err)
	}
	defer ln.Close()
	inside, err := l.Subscriber.Dial(ctx, "tcp4", from, addrPort(ln.Addr()))
	if err != nil {
		return nil, fmt.Errorf("open flow: %w", err)
	}
	outside, err := accept(ctx, ln)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open flow: %w", err), inside.Close())
	}
	f := &Flow{Inside: NewEnd(inside), Outside: NewEnd(outside)}
	l.Own(f)
	return f, nil
}

func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if tcp, ok := ln.(*net.TCPListener); ok {
			_ = tcp.SetDeadline(deadline)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	return ln.Accept()
}

// Source returns the flow's address and port as seen from the internet.
func (f *Flow) Source() netip.AddrPort { return f.Outside.Remote() }

// Out sends a number towards the internet and waits for its arrival.
func (f *Flow) Out(ctx context.Context) error { return pass(ctx, f.Inside, f.Outside) }

// In sends a number towards the subscriber and waits for its arrival.
func (f *Flow) In(ctx context.Context) error { return pass(ctx, f.Outside, f.Inside) }

func pass(ctx context.Context, from, to *End) error {
	n, err := from.Send()
	if err != nil {
		return err
	}
	return to.Await(ctx, n)
}

// Probe sends a number each way at once and reports which of them arrived
// within the given time. It returns early when both have. Late numbers of
// earlier probes do not count.
func (f *Flow) Probe(within time.Duration) (out, in bool) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { out = f.Out(ctx) == nil })
	both.Go(func() { in = f.In(ctx) == nil })
	both.Wait()
	return out, in
}

// Close resets both ends.
func (f *Flow) Close() error {
	return errors.Join(f.Inside.Close(), f.Outside.Close())
}
