package faults

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// A coneEnd is a subscriber's socket that others reach, in a group of full cone.
type coneEnd struct {
	socket *net.UDPConn
	seen   netip.AddrPort // its mapping
}

// again is the wait before a datagram is sent again.
const again = 200 * time.Millisecond

func (w *world) openCone(ctx context.Context, inside netip.Addr) (*coneEnd, error) {
	socket, err := w.Lab.Subscriber.ListenUDP(netip.AddrPortFrom(inside, w.nextPort()))
	if err != nil {
		return nil, err
	}
	e := &coneEnd{socket: socket}
	if e.seen, err = w.ask(ctx, e); err == nil && !w.reaches(e, passesSoon) {
		err = fmt.Errorf("nobody else reaches %v, mapped to %v (NAT-07)", socket.LocalAddr(), e.seen)
	}
	return e, err
}

// ask sends datagrams to the echo server until one is answered, and returns the socket's
// address as seen there.
func (w *world) ask(ctx context.Context, e *coneEnd) (netip.AddrPort, error) {
	for ctx.Err() == nil {
		if _, err := e.socket.WriteToUDPAddrPort([]byte("who am I?"), w.echo.Addr()); err != nil {
			_ = clock.Sleep(ctx, again) // an ICMP error
			continue
		}
		if text, ok := e.receive(again, func(text string) bool { return strings.HasSuffix(text, "who am I?") }); ok {
			line, _, _ := strings.Cut(text, "\n")
			return netip.ParseAddrPort(line)
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%v: no answer: %w", e.socket.LocalAddr(), ctx.Err())
}

// receive waits for a datagram.
func (e *coneEnd) receive(within time.Duration, wanted func(string) bool) (string, bool) {
	until := time.Now().Add(within)
	buf := make([]byte, 1<<10)
	for time.Now().Before(until) {
		_ = e.socket.SetReadDeadline(until)
		n, _, err := e.socket.ReadFromUDPAddrPort(buf)
		if err == nil && wanted(string(buf[:n])) {
			return string(buf[:n]), true
		}
	}
	return "", false
}

// reaches reports whether a host to which the subscriber never sent reaches the socket.
func (w *world) reaches(e *coneEnd, within time.Duration) bool {
	other, err := w.Lab.Internet.ListenUDP(netip.AddrPortFrom(stranger, 0))
	if err != nil {
		return false
	}
	defer other.Close()
	mine := fmt.Sprint("from ", other.LocalAddr(), time.Now().UnixNano())
	for until := time.Now().Add(within); time.Now().Before(until); {
		if _, err := other.WriteToUDPAddrPort([]byte(mine), e.seen); err != nil {
			continue
		}
		if _, ok := e.receive(again, func(text string) bool { return text == mine }); ok {
			return true
		}
	}
	return false
}

// keepsMapping checks that the socket has the mapping that it had, towards all hosts (NAT-01),
// and that others reach it. A mapping that the kernel lost is learned again from the first
// packet.
func (w *world) keepsMapping(ctx context.Context, e *coneEnd) error {
	seen, err := w.ask(ctx, e)
	if err != nil {
		return err
	}
	if seen != e.seen {
		return fmt.Errorf("%v is seen as %v, was %v (NAT-01)", e.socket.LocalAddr(), seen, e.seen)
	}
	if !w.reaches(e, passesSoon) {
		return fmt.Errorf("nobody else reaches %v, mapped to %v (NAT-07)", e.socket.LocalAddr(), e.seen)
	}
	return nil
}
