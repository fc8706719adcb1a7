package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/netlab"
)

// subscriber is a host behind the CGN, with one or more inside addresses.
type subscriber struct {
	network network
	control string
	flows   flows
}

func newSubscriber() *cobra.Command {
	var h subscriber
	cmd := &cobra.Command{
		Use:   "subscriber",
		Short: "Play a subscriber's host: open flows through the CGN on orders",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return h.run(cmd.Context()) },
	}
	h.network.flags(cmd.Flags())
	cmd.Flags().StringVar(&h.control, "control", labapi.Address, "take orders over HTTP on `ADDRESS:PORT`")
	return cmd
}

// newAsk returns the command with which a person sees what the internet sees.
func newAsk() *cobra.Command {
	p := labapi.Probe{Milliseconds: 3000}
	cmd := &cobra.Command{
		Use:   "ask ADDRESS:PORT",
		Short: "Ask an echo server for the address and port that it sees, and print them",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if p.To, err = netip.ParseAddrPort(args[0]); err != nil {
				return err
			}
			p.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
			answer, err := ask(cmd.Context(), nil, p)
			if err != nil {
				return fmt.Errorf("no answer from %v: %w", p.To, err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), answer.Seen)
			return nil
		},
	}
	cmd.Flags().StringVar(&p.Network, "network", "tcp4", "`NETWORK`: tcp4 or udp4")
	return cmd
}

func (h *subscriber) run(ctx context.Context) error {
	if err := h.network.setUp(ctx); err != nil {
		return err
	}
	defer h.flows.Close()
	mux := http.NewServeMux()
	mux.Handle("POST /ask", order(ask))
	mux.Handle("POST /ping", order(ping))
	mux.Handle("POST /flows", order(h.open))
	h.flows.handle(mux)
	return serve(ctx, h.control, mux)
}

func ask(ctx context.Context, _ *http.Request, p labapi.Probe) (labapi.Answer, error) {
	ctx, cancel := limit(ctx, p.Milliseconds)
	defer cancel()
	here := netlab.Current()
	var seen netip.AddrPort
	var err error
	switch p.Network {
	case "tcp4":
		seen, err = here.AskTCP(ctx, p.From, p.To)
	case "udp4":
		seen, err = here.AskUDP(ctx, p.From, p.To)
	default:
		err = fmt.Errorf("unknown network %q", p.Network)
	}
	return labapi.Answer{Seen: seen}, err
}

func ping(ctx context.Context, _ *http.Request, p labapi.Probe) (labapi.Pong, error) {
	ctx, cancel := limit(ctx, p.Milliseconds)
	defer cancel()
	payload, err := netlab.Current().Ping(ctx, p.From.Addr(), p.To.Addr(), p.From.Port())
	return labapi.Pong{Payload: payload}, err
}

func (h *subscriber) open(ctx context.Context, _ *http.Request, p labapi.Probe) (labapi.Flow, error) {
	ctx, cancel := limit(ctx, p.Milliseconds)
	defer cancel()
	conn, err := netlab.Current().Dial(ctx, "tcp4", p.From, p.To)
	if err != nil {
		return labapi.Flow{}, err
	}
	return h.flows.add(netlab.NewEnd(conn)), nil
}
