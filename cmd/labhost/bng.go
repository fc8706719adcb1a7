package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

// bng is an access router that reports the begin and end of its subscribers'
// sessions, to all of its accounting servers.
type bng struct {
	network network
	control string
	servers []string
	secret  string
	nas     string
	timeout time.Duration
	tries   int
}

func newBNG() *cobra.Command {
	var h bng
	cmd := &cobra.Command{
		Use:   "bng",
		Short: "Play a BNG: send RADIUS accounting on orders",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return h.run(cmd.Context()) },
	}
	h.network.flags(cmd.Flags())
	fs := cmd.PersistentFlags()
	fs.StringSliceVar(&h.servers, "server", strings.Split(cmp.Or(os.Getenv("LABHOST_SERVERS"), "127.0.0.1:1813"), ","),
		"send accounting to `HOST:PORT`; may be repeated (LABHOST_SERVERS, by commas)")
	fs.StringVar(&h.secret, "secret", os.Getenv("LABHOST_SECRET"), "shared `SECRET` (LABHOST_SECRET)")
	fs.StringVar(&h.nas, "nas", "bng1", "send this `NAS-IDENTIFIER`")
	fs.DurationVar(&h.timeout, "timeout", 3*time.Second, "retransmit after this `time` without a reply")
	fs.IntVar(&h.tries, "tries", 3, "send a request at most `N` times")
	cmd.Flags().StringVar(&h.control, "control", labapi.Address, "take orders over HTTP on `ADDRESS:PORT`")
	for _, status := range []string{"start", "interim", "stop", "on", "off"} {
		cmd.AddCommand(newReport(&h, status))
	}
	return cmd
}

// newReport returns the command that sends one request and exits.
func newReport(h *bng, status string) *cobra.Command {
	a := labapi.Account{Status: status}
	cmd := &cobra.Command{
		Use:   status,
		Short: "Send one Accounting-Request of this kind, exit 0 after its acknowledgment",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := h.report(cmd.Context(), nil, a)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&a.User, "user", "", "`User-Name`")
	fs.StringVar(&a.Session, "session", "", "`Acct-Session-Id`")
	fs.StringVar(&a.Calling, "calling", "", "`Calling-Station-Id`")
	fs.Var(addressFlag{&a.Address}, "address", "`Framed-IP-Address`")
	fs.IntVar(&a.SessionSeconds, "session-time", 0, "Acct-Session-Time in `SECONDS`")
	return cmd
}

func (h *bng) run(ctx context.Context) error {
	if err := h.network.setUp(ctx); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /accounting", order(h.report))
	return serve(ctx, h.control, mux)
}

// report sends one request to each server. It fails if none acknowledges it.
func (h *bng) report(ctx context.Context, _ *http.Request, a labapi.Account) (labapi.Reported, error) {
	request, err := requestOf(a, h.nas)
	if err != nil {
		return labapi.Reported{}, err
	}
	began := time.Now()
	failures := make([]error, len(h.servers))
	var all sync.WaitGroup
	for i, server := range h.servers {
		all.Go(func() { failures[i] = h.send(ctx, server, request) })
	}
	all.Wait()
	reported := labapi.Reported{Milliseconds: float64(time.Since(began)) / float64(time.Millisecond)}
	for _, err := range failures {
		if err == nil {
			reported.Acknowledged++
		}
	}
	if reported.Acknowledged == 0 {
		return reported, errors.Join(failures...)
	}
	return reported, nil
}

// send sends one request from a new socket, like a BNG that restarts between any two.
func (h *bng) send(ctx context.Context, server string, request acctclient.Request) error {
	client, err := acctclient.Dial(ctx, server, "", acctclient.Options{
		Secret:        []byte(h.secret),
		Timeout:       h.timeout,
		Transmissions: h.tries,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Account(ctx, request)
}
