package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/netlab"
)

// internet is a host that reports the clients that it saw.
type internet struct {
	network network
	control string
	echoes  []string
	flowsAt string

	servers []*netlab.Echo
	pings   *netlab.PingWatch
	flows   flows
}

func newInternet() *cobra.Command {
	var h internet
	cmd := &cobra.Command{
		Use:   "internet",
		Short: "Play an internet host: echo servers that report the source they see",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return h.run(cmd.Context()) },
	}
	h.network.flags(cmd.Flags())
	cmd.Flags().StringVar(&h.control, "control", labapi.Address, "take orders over HTTP on `ADDRESS:PORT`")
	cmd.Flags().StringSliceVar(&h.echoes, "echo", nil, "echo TCP and UDP on `ADDRESS:PORT`")
	cmd.Flags().StringVar(&h.flowsAt, "flows", "0.0.0.0:7000", "take long-lived flows on `ADDRESS:PORT`")
	return cmd
}

func (h *internet) run(ctx context.Context) error {
	if err := h.network.setUp(ctx); err != nil {
		return err
	}
	defer h.close()
	ln, err := h.listen(ctx)
	if err != nil {
		return err
	}
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return h.acceptFlows(ctx, ln) })
	tasks.Go(func() error { return serve(ctx, h.control, h.mux()) })
	return tasks.Wait()
}

func (h *internet) listen(ctx context.Context) (net.Listener, error) {
	here := netlab.Current()
	for _, address := range h.echoes {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("--echo: %w", err)
		}
		e, err := here.StartEcho(at)
		if err != nil {
			return nil, err
		}
		h.servers = append(h.servers, e)
	}
	pings, err := here.WatchPings(netip.IPv4Unspecified())
	if err != nil {
		return nil, err
	}
	h.pings = pings
	at, err := netip.ParseAddrPort(h.flowsAt)
	if err != nil {
		return nil, fmt.Errorf("--flows: %w", err)
	}
	return here.Listen(ctx, at)
}

func (h *internet) acceptFlows(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept flow: %w", err)
		}
		h.flows.add(netlab.NewEnd(conn))
	}
}

func (h *internet) close() {
	for _, e := range h.servers {
		_ = e.Close()
	}
	if h.pings != nil {
		_ = h.pings.Close()
	}
	_ = h.flows.Close()
}

func (h *internet) mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /seen", order(h.seen))
	mux.Handle("POST /datagrams", order(h.send))
	h.flows.handle(mux)
	return mux
}

func (h *internet) seen(context.Context, *http.Request, none) (labapi.Seen, error) {
	s := labapi.Seen{Echo: []netlab.Sighting{}, Pings: h.pings.Seen()}
	for _, e := range h.servers {
		s.Echo = append(s.Echo, e.Seen()...)
	}
	return s, nil
}

// send sends an unsolicited datagram to an outside address, as a third party
// would.
func (h *internet) send(_ context.Context, _ *http.Request, d labapi.Datagram) (none, error) {
	conn, err := netlab.Current().ListenUDP(d.From)
	if err != nil {
		return none{}, err
	}
	defer conn.Close()
	_, err = conn.WriteToUDPAddrPort([]byte(d.Payload), d.To)
	return none{}, err
}
