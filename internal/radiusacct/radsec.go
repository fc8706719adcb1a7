package radiusacct

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// acceptPause is the time without accepting after the system refused it, for
// want of file descriptors mostly.
const acceptPause = 50 * time.Millisecond

// RadSec configures accounting over TLS (RFC 6614).
type RadSec struct {
	// Listen holds TCP addresses, in the form of Options.Listen; the port for
	// RadSec is 2083. Required.
	Listen []string
	// CertFile and KeyFile name the PEM files of the server's certificate chain
	// and its key. They and ClientCAFile are read at each handshake, so that
	// renewed ones need no restart. Required.
	CertFile, KeyFile string
	// ClientCAFile names a PEM file of the CAs whose certificates are believed.
	// Optional where all clients are known by their fingerprints.
	ClientCAFile string
	// IdleTimeout ends connections on which nothing comes; the default is 5
	// minutes. A watchdog is faster (RFC 3539: 30 seconds).
	IdleTimeout time.Duration
	// HandshakeTimeout bounds the time from accept to a known client; the default is
	// 10 seconds.
	HandshakeTimeout time.Duration
	// MaxConnections bounds the connections of clients; the default is 1024. Those in
	// their handshake, whose client is not known yet, have a quarter as many of their own.
	MaxConnections int
	// MaxConnectionsPerClient bounds those of one client; the default is 16.
	MaxConnectionsPerClient int
}

func (c *RadSec) validate() error {
	switch {
	case len(c.Listen) == 0:
		return errors.New("radsec: listen: no address given")
	case c.CertFile == "" || c.KeyFile == "":
		return errors.New("radsec: certificate or key file is missing")
	case c.IdleTimeout < 0 || c.HandshakeTimeout < 0 || c.MaxConnections < 0 || c.MaxConnectionsPerClient < 0:
		return errors.New("radsec: timeouts and limits of connections cannot be negative")
	}
	return nil
}

func (c RadSec) withDefaults() *RadSec {
	setDefault(&c.IdleTimeout, 5*time.Minute)
	setDefault(&c.HandshakeTimeout, 10*time.Second)
	setDefault(&c.MaxConnections, 1024)
	setDefault(&c.MaxConnectionsPerClient, 16)
	return &c
}

// A radsec accepts connections and owns their goroutines.
type radsec struct {
	server    *Server
	config    *RadSec
	listeners []net.Listener
	admission *admission

	connections sync.WaitGroup // goroutines of connections
	reading     sync.WaitGroup // those of them that still read
	recorded    chan struct{}  // closed when no more replies will come

	mu       sync.Mutex
	streams  map[*stream]struct{}
	stopping bool
}

// openRadSec binds the listeners and checks the files.
func openRadSec(s *Server, config *RadSec) (*radsec, error) {
	if _, _, err := config.load(); err != nil {
		return nil, err
	}
	r := &radsec{
		server:    s,
		config:    config,
		admission: newAdmission(config.MaxConnections, config.MaxConnectionsPerClient),
		recorded:  make(chan struct{}),
		streams:   make(map[*stream]struct{}),
	}
	for _, listen := range config.Listen {
		l, err := listenTCP(listen)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.listeners = append(r.listeners, l)
	}
	return r, nil
}

func listenTCP(listen string) (net.Listener, error) {
	network, err := networkOf("tcp", listen)
	if err != nil {
		return nil, err
	}
	return net.Listen(network, listen)
}

// run accepts until interrupt, and returns when nobody reads any more.
func (r *radsec) run(ctx context.Context) {
	var accepting sync.WaitGroup
	for _, l := range r.listeners {
		accepting.Go(func() { r.accept(ctx, l) })
	}
	accepting.Wait()
	r.reading.Wait()
}

func (r *radsec) accept(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			r.take(ctx, conn)
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			r.server.acceptFailed(err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		}
	}
}

// take starts a connection, if there is room for it.
func (r *radsec) take(ctx context.Context, conn net.Conn) {
	source := sourceOf(conn)
	waiting := r.admission.enter(source.Addr(), conn)
	if waiting == nil {
		r.server.connectionRefused("", source, overrun.cause, overrun.err)
		conn.Close()
		return
	}
	r.reading.Add(1)
	r.connections.Go(func() {
		defer conn.Close()
		if s := r.serveConn(ctx, conn, source, waiting); s != nil {
			r.finish(s)
		}
	})
}

// serveConn reads a connection to its end. It returns nil for one that was refused.
func (r *radsec) serveConn(ctx context.Context, conn net.Conn, source netip.AddrPort, waiting *handshake) *stream {
	defer r.reading.Done()
	s, refusal := r.handshake(ctx, conn, source)
	var client string
	if refusal == nil {
		client = s.client.peer.name
		refusal = r.admission.admit(waiting, s.client.peer)
	} else if others := r.admission.leave(waiting); others != nil {
		refusal = others
	}
	if refusal != nil {
		r.server.connectionRefused(client, source, refusal.cause, refusal.err)
		return nil
	}
	r.server.options.Observer.ConnectionOpened(client)
	r.enter(s)
	s.writing.Go(s.write)
	s.cause = s.read()
	return s
}

// finish ends a connection. When the server stops, the replies to what was
// read still go out.
func (r *radsec) finish(s *stream) {
	if s.cause == ClosedShutdown {
		<-r.recorded
	}
	s.finish()
	s.writing.Wait()
	r.mu.Lock()
	delete(r.streams, s)
	r.mu.Unlock()
	r.admission.release(s.peer)
	r.server.connectionClosed(s)
}

// enter makes a stream known to interrupt and revoke.
func (r *radsec) enter(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[s] = struct{}{}
	if r.stopping {
		s.stop()
	}
}

// revoke ends the connections of clients that are no longer configured.
func (r *radsec) revoke(table *clientTable) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.streams {
		if s.who.client(table) == nil {
			s.wake()
		}
	}
}

// interrupt ends accepting and reading, while replies can still be written.
func (r *radsec) interrupt() error {
	err := r.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	for s := range r.streams {
		s.stop()
	}
	return err
}

// drain ends the connections, after the last reply was handed over, within the
// given time.
func (r *radsec) drain(within time.Duration) {
	close(r.recorded)
	timeout := time.AfterFunc(within, r.abort)
	defer timeout.Stop()
	r.connections.Wait()
}

func (r *radsec) abort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.streams {
		s.raw.Close()
	}
}

// close closes the listeners. Closing twice is no error.
func (r *radsec) close() error {
	var errs []error
	for _, l := range r.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func sourceOf(conn net.Conn) netip.AddrPort {
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}
