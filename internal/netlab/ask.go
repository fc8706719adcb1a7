package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/clock"
)

// retryInterval is the wait for a datagram or an echo reply before a retry.
const retryInterval = 200 * time.Millisecond

// AskTCP connects to an Echo server and returns this side's address as seen
// there.
func (n *Namespace) AskTCP(ctx context.Context, local, echo netip.AddrPort) (netip.AddrPort, error) {
	conn, err := n.Dial(ctx, "tcp4", local, echo)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask by TCP: %w", err)
	}
	defer conn.Close()
	defer onDone(ctx, conn)()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask by TCP: %w", err)
	}
	return netip.ParseAddrPort(strings.TrimSpace(line))
}

// AskUDP sends datagrams to an Echo server until one is answered or ctx is
// done, and returns this side's address as seen there.
func (n *Namespace) AskUDP(ctx context.Context, local, echo netip.AddrPort) (netip.AddrPort, error) {
	conn, err := n.Dial(ctx, "udp4", local, echo)
	for errors.Is(err, unix.EADDRINUSE) && clock.Sleep(ctx, retryInterval) == nil {
		// A process that is being started has a copy of each socket until it execs.
		conn, err = n.Dial(ctx, "udp4", local, echo)
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask by UDP: %w", err)
	}
	defer conn.Close()
	defer onDone(ctx, conn)()
	buf := make([]byte, 1<<16)
	for ctx.Err() == nil {
		if _, err := conn.Write([]byte("who am I?")); err != nil && ctx.Err() == nil {
			if err := clock.Sleep(ctx, retryInterval); err != nil { // an ICMP error, or no route yet
				break
			}
			continue
		}
		size, err := readUntil(conn, buf, time.Now().Add(retryInterval))
		if err == nil {
			line, _, _ := strings.Cut(string(buf[:size]), "\n")
			return netip.ParseAddrPort(line)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && clock.Sleep(ctx, retryInterval) != nil {
			break
		}
	}
	return netip.AddrPort{}, fmt.Errorf("ask by UDP: no answer: %w", ctx.Err())
}

// onDone makes reads of conn fail once ctx is done, by closing it, until the
// returned function is called.
func onDone(ctx context.Context, conn net.Conn) (stop func()) {
	cancel := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return func() { cancel() }
}

func readUntil(conn net.Conn, buf []byte, deadline time.Time) (int, error) {
	_ = conn.SetReadDeadline(deadline)
	return conn.Read(buf)
}
