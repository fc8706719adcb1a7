package controltest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
)

// Server is a running control.Server.
type Server struct {
	*control.Server
	Address string // for a gRPC client, "127.0.0.1:port" or "unix:PATH"

	stop    context.CancelFunc
	stopped chan error
}

// Serve serves the backend on a free loopback port, where all may change things,
// at the time of the scene, until the test ends. Change may set further options; it may be nil.
func Serve(t testing.TB, b *Backend, change func(*control.Options)) *Server {
	t.Helper()
	o := control.Options{
		Listen: "127.0.0.1:0", Subscribers: b, Nat: b, Sessions: b, Controls: b, Removals: b, NASes: b, Mappings: b, Desk: b,
		Audits: &b.Audits, Previews: Previews{b},
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return Now }, LocalRole: access.Admin,
	}
	if change != nil {
		change(&o)
	}
	server, err := control.New(o)
	if err != nil {
		t.Fatalf("start server: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{Server: server, Address: address(server), stop: stop, stopped: make(chan error, 1)}
	go func() { s.stopped <- server.Run(ctx) }()
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Stop stops the server and waits for it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.stop()
	if err := <-s.stopped; err != nil {
		t.Errorf("server: %v", err)
	}
	s.stopped <- nil // for a later Stop
}

func address(s *control.Server) string {
	if s.Addr().Network() == "unix" {
		return "unix:" + s.Addr().String()
	}
	return s.Addr().String()
}
