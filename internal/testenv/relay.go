package testenv

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A Relay is one TCP address in front of changing servers, like a balancer or a
// virtual address. A connection stays with its first server.
type Relay struct {
	Addr string

	mu     sync.Mutex
	socket string
	open   map[net.Conn]struct{}
	tasks  sync.WaitGroup
}

// StartRelay starts a relay to a server's unix socket, until the test ends.
func StartRelay(t testing.TB, socket string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Addr: l.Addr().String(), socket: socket, open: map[net.Conn]struct{}{}}
	r.tasks.Go(func() { r.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		r.closeAll()
		r.tasks.Wait()
	})
	return r
}

// Lead directs new connections to another server.
func (r *Relay) Lead(socket string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.socket = socket
}

func (r *Relay) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		socket := r.socket
		r.mu.Unlock()
		server, err := net.Dial("unix", socket)
		if err != nil {
			_ = c.Close()
			continue
		}
		r.keep(c, server)
		r.tasks.Go(func() { carry(c, server) })
		r.tasks.Go(func() { carry(server, c) })
	}
}

// carry copies octets one way, and closes both connections at the end of
// either.
func carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

func (r *Relay) keep(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.open[c] = struct{}{}
	}
}

func (r *Relay) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		_ = c.Close()
	}
}
