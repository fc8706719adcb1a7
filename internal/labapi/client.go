package labapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sessiond/sessiond/internal/netlab"
)

// A Client sends orders to one host, from within its network namespace.
type Client struct {
	http *http.Client
}

// NewClient returns a client for the host in the namespace.
func NewClient(ns *netlab.Namespace) *Client {
	dial := func(ctx context.Context, _, address string) (net.Conn, error) {
		remote, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return ns.Dial(ctx, "tcp4", netip.AddrPort{}, remote)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Ask makes a subscriber ask an echo server for its address as seen there.
func (c *Client) Ask(ctx context.Context, p Probe) (netip.AddrPort, error) {
	var a Answer
	err := c.order(ctx, "POST", "/ask", p, &a)
	return a.Seen, err
}

// Ping makes a subscriber ping, and returns the payload of the answered
// request.
func (c *Client) Ping(ctx context.Context, p Probe) (string, error) {
	var a Pong
	err := c.order(ctx, "POST", "/ping", p, &a)
	return a.Payload, err
}

// Open makes a subscriber open a long-lived flow.
func (c *Client) Open(ctx context.Context, p Probe) (Flow, error) {
	var f Flow
	err := c.order(ctx, "POST", "/flows", p, &f)
	return f, err
}

// Flows returns the ends of flows at a subscriber or internet host.
func (c *Client) Flows(ctx context.Context) ([]Flow, error) {
	var all []Flow
	err := c.order(ctx, "GET", "/flows", nil, &all)
	return all, err
}

// Send makes a host send the next number on a flow, and returns it.
func (c *Client) Send(ctx context.Context, flow int) (uint64, error) {
	var s Sent
	err := c.order(ctx, "POST", fmt.Sprintf("/flows/%d/send", flow), nil, &s)
	return s.Number, err
}

// End makes a host reset its end of a flow.
func (c *Client) End(ctx context.Context, flow int) error {
	return c.order(ctx, "DELETE", fmt.Sprintf("/flows/%d", flow), nil, nil)
}

// Seen returns all clients that an internet host has seen.
func (c *Client) Seen(ctx context.Context) (Seen, error) {
	var s Seen
	err := c.order(ctx, "GET", "/seen", nil, &s)
	return s, err
}

// SendDatagram makes an internet host send an unsolicited datagram.
func (c *Client) SendDatagram(ctx context.Context, d Datagram) error {
	return c.order(ctx, "POST", "/datagrams", d, nil)
}

// Account makes a BNG send an accounting request, and returns after the
// acknowledgment.
func (c *Client) Account(ctx context.Context, a Account) (Reported, error) {
	var r Reported
	err := c.order(ctx, "POST", "/accounting", a, &r)
	return r, err
}

// order sends an order and decodes the response into resp, unless that is nil.
func (c *Client) order(ctx context.Context, method, path string, req, resp any) error {
	var body io.Reader
	if req != nil {
		b, err := json.Marshal(req)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+Address+path, body)
	if err != nil {
		return err
	}
	got, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	return decode(got, resp)
}

func decode(got *http.Response, resp any) error {
	b, err := io.ReadAll(got.Body)
	if err != nil {
		return err
	}
	if got.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s",
			got.Request.Method, got.Request.URL.Path, got.Status, strings.TrimSpace(string(b)))
	}
	if resp == nil {
		return nil
	}
	return json.Unmarshal(b, resp)
}
