package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// A Sighting is a client that an Echo server saw.
type Sighting struct {
	Network string         `json:"network"` // "tcp4" or "udp4"
	Source  netip.AddrPort `json:"source"`
}

// An Echo is a TCP and a UDP server on one address and port. It sends each
// client its address and port as seen here, in a line before a TCP stream or
// each datagram. Then it echoes the client's octets.
type Echo struct {
	listener net.Listener
	packets  *net.UDPConn
	tasks    sync.WaitGroup

	mu     sync.Mutex
	seen   []Sighting
	conns  map[net.Conn]struct{}
	closed bool
}

// StartEcho starts an echo server on an address of the internet host (port 0:
// any port). The lab closes it.
func (l *Lab) StartEcho(addr netip.AddrPort) (*Echo, error) {
	e, err := l.Internet.StartEcho(addr)
	if err != nil {
		return nil, err
	}
	l.Own(e)
	return e, nil
}

// StartEcho starts an echo server in the namespace. The address must not be
// unspecified, or replies could have another source than the requested address.
// The caller must Close the server.
func (n *Namespace) StartEcho(addr netip.AddrPort) (*Echo, error) {
	ln, err := n.Listen(context.Background(), addr)
	if err != nil {
		return nil, fmt.Errorf("start echo: %w", err)
	}
	packets, err := n.ListenUDP(addrPort(ln.Addr()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start echo: %w", err), ln.Close())
	}
	e := &Echo{listener: ln, packets: packets, conns: make(map[net.Conn]struct{})}
	e.tasks.Go(e.serveTCP)
	e.tasks.Go(e.serveUDP)
	return e, nil
}

// Addr returns the server's address, the same for TCP and UDP.
func (e *Echo) Addr() netip.AddrPort { return addrPort(e.listener.Addr()) }

// Seen returns the clients seen so far, in order: one for each TCP connection
// or datagram.
func (e *Echo) Seen() []Sighting {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.seen)
}

// Close ends the server and its connections, and waits for its goroutines.
func (e *Echo) Close() error {
	e.mu.Lock()
	e.closed = true
	for c := range e.conns {
		_ = c.Close()
	}
	e.mu.Unlock()
	err := errors.Join(e.listener.Close(), e.packets.Close())
	e.tasks.Wait()
	return err
}

func (e *Echo) serveTCP() {
	for {
		conn, err := e.listener.Accept()
		if err != nil {
			return
		}
		if !e.admit(conn) {
			_ = conn.Close()
			return
		}
		e.tasks.Go(func() { e.serveConn(conn) })
	}
}

// admit registers a connection for Close; false after Close.
func (e *Echo) admit(conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.conns[conn] = struct{}{}
	e.seen = append(e.seen, Sighting{Network: "tcp4", Source: addrPort(conn.RemoteAddr())})
	return true
}

func (e *Echo) serveConn(conn net.Conn) {
	if _, err := fmt.Fprintln(conn, addrPort(conn.RemoteAddr())); err == nil {
		_, _ = io.Copy(conn, conn)
	}
	_ = conn.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, conn)
}

func (e *Echo) serveUDP() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := e.packets.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier reply
		}
		e.mu.Lock()
		e.seen = append(e.seen, Sighting{Network: "udp4", Source: from})
		e.mu.Unlock()
		_, _ = e.packets.WriteToUDPAddrPort(fmt.Appendf(nil, "%s\n%s", from, buf[:n]), from)
	}
}
