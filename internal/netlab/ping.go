package netlab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/sessiond/sessiond/internal/clock"
)

// icmpProtocol is ICMP's number among the IP protocols.
const icmpProtocol = 1

// An EchoRequest is a ping as seen by its target.
type EchoRequest struct {
	Source  netip.Addr `json:"source"`
	ID      uint16     `json:"id"`
	Payload string     `json:"payload"`
}

// Ping sends echo requests with the id from a local address of the namespace
// until one is answered or ctx is done. It returns the payload of the requests,
// by which the target can identify them.
func (n *Namespace) Ping(ctx context.Context, from, to netip.Addr, id uint16) (payload string, err error) {
	conn, err := n.listenICMP(from)
	if err != nil {
		return "", fmt.Errorf("ping: %w", err)
	}
	defer conn.Close()
	payload = rand.Text()
	for seq := 1; ctx.Err() == nil; seq++ {
		echo := icmp.Echo{ID: int(id), Seq: seq, Data: []byte(payload)}
		if err := sendEcho(conn, to, echo); err != nil {
			return payload, fmt.Errorf("ping %s: %w", to, err)
		}
		if awaitReply(conn, echo) {
			return payload, nil
		}
	}
	return payload, fmt.Errorf("ping %s from %s: no reply: %w", to, from, ctx.Err())
}

func (n *Namespace) listenICMP(local netip.Addr) (*icmp.PacketConn, error) {
	var conn *icmp.PacketConn
	err := n.Do(func() (err error) {
		conn, err = icmp.ListenPacket("ip4:icmp", local.String())
		return err
	})
	return conn, err
}

func sendEcho(conn *icmp.PacketConn, to netip.Addr, echo icmp.Echo) error {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &echo}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(b, &net.IPAddr{IP: to.AsSlice()})
	return err
}

// awaitReply waits a retry interval for the reply to an echo request.
func awaitReply(conn *icmp.PacketConn, echo icmp.Echo) bool {
	_ = conn.SetReadDeadline(time.Now().Add(retryInterval))
	buf := make([]byte, 1<<16)
	for {
		size, _, err := conn.ReadFrom(buf)
		if err != nil {
			return false
		}
		got, ok := parseEcho(buf[:size], ipv4.ICMPTypeEchoReply)
		if ok && got.ID == echo.ID && string(got.Data) == string(echo.Data) {
			return true
		}
	}
}

func parseEcho(b []byte, want ipv4.ICMPType) (*icmp.Echo, bool) {
	m, err := icmp.ParseMessage(icmpProtocol, b)
	if err != nil || m.Type != want {
		return nil, false
	}
	echo, ok := m.Body.(*icmp.Echo)
	return echo, ok
}

// A PingWatch records the echo requests that arrive in a namespace. The kernel
// answers them.
type PingWatch struct {
	conn *icmp.PacketConn
	done chan struct{}

	mu   sync.Mutex
	seen []EchoRequest
}

// WatchPings records the echo requests to a local address, or to all for the
// unspecified one. The caller must Close the watch.
func (n *Namespace) WatchPings(local netip.Addr) (*PingWatch, error) {
	conn, err := n.listenICMP(local)
	if err != nil {
		return nil, fmt.Errorf("watch pings: %w", err)
	}
	w := &PingWatch{conn: conn, done: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *PingWatch) run() {
	defer close(w.done)
	buf := make([]byte, 1<<16)
	for {
		size, from, err := w.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if echo, ok := parseEcho(buf[:size], ipv4.ICMPTypeEcho); err == nil && ok {
			w.add(from, echo)
		}
	}
}

func (w *PingWatch) add(from net.Addr, echo *icmp.Echo) {
	ip, ok := from.(*net.IPAddr)
	if !ok {
		return
	}
	source, _ := netip.AddrFromSlice(ip.IP)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, EchoRequest{Source: source.Unmap(), ID: uint16(echo.ID), Payload: string(echo.Data)})
}

// Seen returns the echo requests seen so far, in order.
func (w *PingWatch) Seen() []EchoRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// Close ends the watch.
func (w *PingWatch) Close() error {
	err := w.conn.Close()
	<-w.done
	return err
}

// Ping pings the first remote from a subscriber's address and returns the echo
// request as seen there.
func (l *Lab) Ping(ctx context.Context, from netip.Addr, id uint16) (EchoRequest, error) {
	w, err := l.Internet.WatchPings(l.Remotes[0])
	if err != nil {
		return EchoRequest{}, err
	}
	defer w.Close()
	payload, err := l.Subscriber.Ping(ctx, from, l.Remotes[0], id)
	if err != nil {
		return EchoRequest{}, err
	}
	return w.await(ctx, payload)
}

// await returns the first request with the payload. Its reply may arrive before
// the watch has read it.
func (w *PingWatch) await(ctx context.Context, payload string) (EchoRequest, error) {
	for {
		for _, r := range w.Seen() {
			if r.Payload == payload {
				return r, nil
			}
		}
		if err := clock.Sleep(ctx, retryInterval); err != nil {
			return EchoRequest{}, fmt.Errorf("answered ping was not seen: %w", err)
		}
	}
}
