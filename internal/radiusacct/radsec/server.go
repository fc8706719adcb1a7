package radsec

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

// acceptPause is the pause after a failed accept(2), usually for want of file descriptors.
const acceptPause = 50 * time.Millisecond

// A Service identifies clients and serves packets. Its methods are called from several
// goroutines.
type Service interface {
	// Identify returns the name of the client that now has an identity, "" for none.
	Identify(Identity) string
	// Converse returns a Conversation, which serves the packets of a connection.
	Converse(*Stream) Conversation

	// Opened is called for each connection whose client is known.
	Opened(client string)
	// Closed is called when such a connection ended, with one of the Closed constants.
	Closed(client string, source netip.AddrPort, cause string)
	// Refused is called for each other connection, with one of the Refused constants.
	// Client is empty when there is none.
	Refused(client string, source netip.AddrPort, cause string, err error)
	// AcceptFailed is called when accept(2) failed.
	AcceptFailed(err error)

	// Now returns the time for the validity of certificates.
	Now() time.Time
}

// A Conversation is the service's part of one connection. One goroutine calls it.
type Conversation interface {
	// Client returns the present name of the connection's client, "" when it is no longer
	// configured.
	Client() string
	// Serve serves a packet, which is valid until it returns, and reports whether the
	// connection must end. Replies go to [Stream.Send], then or later.
	Serve(p wire.Packet) (fatal bool)
	// Refuse is called for octets that are not a packet.
	Refuse(*wire.Malformed)
}

// A Server accepts connections and owns their goroutines.
type Server struct {
	service   Service
	options   Options
	listeners []net.Listener
	admission *admission

	connections sync.WaitGroup // goroutines of connections
	reading     sync.WaitGroup // goroutines that still read
	recorded    chan struct{}  // closed when no more replies will come

	mu       sync.Mutex
	streams  map[*Stream]struct{}
	stopping bool
}

// Open checks options and files, and binds the listeners by listen.
func Open(service Service, options Options, listen func(address string) (net.Listener, error)) (*Server, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	if _, _, err := options.load(); err != nil {
		return nil, err
	}
	options = options.withDefaults()
	r := &Server{
		service:   service,
		options:   options,
		admission: newAdmission(options.MaxConnections, options.MaxConnectionsPerClient),
		recorded:  make(chan struct{}),
		streams:   make(map[*Stream]struct{}),
	}
	for _, address := range options.Listen {
		l, err := listen(address)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.listeners = append(r.listeners, l)
	}
	return r, nil
}

// Addrs returns the bound addresses in the order of Options.Listen.
func (r *Server) Addrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, l := range r.listeners {
		addrs = append(addrs, l.Addr().(*net.TCPAddr).AddrPort())
	}
	return addrs
}

// Run accepts until Interrupt, and returns when all reading has ended.
func (r *Server) Run(ctx context.Context) {
	var accepting sync.WaitGroup
	for _, l := range r.listeners {
		accepting.Go(func() { r.accept(ctx, l) })
	}
	accepting.Wait()
	r.reading.Wait()
}

func (r *Server) accept(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			r.admitConn(ctx, conn)
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			r.service.AcceptFailed(err)
			_ = clock.Sleep(ctx, acceptPause) // the listener is closed when ctx ends
		}
	}
}

// admitConn starts the handshake of a connection, if there is room for it.
func (r *Server) admitConn(ctx context.Context, conn net.Conn) {
	source := sourceOf(conn)
	waiting := r.admission.enter(source.Addr(), conn)
	if waiting == nil {
		r.service.Refused("", source, overrun.cause, overrun.err)
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

// serveConn reads a connection to its end. It returns nil for a refused one.
func (r *Server) serveConn(ctx context.Context, conn net.Conn, source netip.AddrPort, waiting *handshake) *Stream {
	defer r.reading.Done()
	s, refusal := r.handshake(ctx, conn, source)
	var client string
	if refusal == nil {
		client = s.client
		refusal = r.admission.admit(waiting, client)
	} else if others := r.admission.leave(waiting); others != nil {
		refusal = others
	}
	if refusal != nil {
		r.service.Refused(client, source, refusal.cause, refusal.err)
		return nil
	}
	r.service.Opened(client)
	r.enter(s)
	s.writing.Go(s.write)
	s.cause = s.read()
	return s
}

// finish ends a connection. When the server stops, replies to requests already read are
// still sent.
func (r *Server) finish(s *Stream) {
	if s.cause == ClosedShutdown {
		<-r.recorded
	}
	s.finish()
	s.writing.Wait()
	r.mu.Lock()
	delete(r.streams, s)
	r.mu.Unlock()
	r.admission.release(s.client)
	r.service.Closed(s.client, s.source, s.cause)
}

// enter adds a stream to those that Interrupt and Revoke act on.
func (r *Server) enter(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[s] = struct{}{}
	if r.stopping {
		s.stop()
	}
}

// Revoke ends the connections of clients that are no longer configured.
func (r *Server) Revoke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.streams {
		if r.service.Identify(s.identity) == "" {
			s.wake()
		}
	}
}

// Interrupt ends accepting and reading, while replies can still be written.
func (r *Server) Interrupt() error {
	err := r.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	for s := range r.streams {
		s.stop()
	}
	return err
}

// Drain ends the connections within the given time. It is called after the last Send.
func (r *Server) Drain(within time.Duration) {
	close(r.recorded)
	timeout := time.AfterFunc(within, r.abort)
	defer timeout.Stop()
	r.connections.Wait()
}

func (r *Server) abort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.streams {
		s.raw.Close()
	}
}

// Close closes the listeners. Closing twice is no error.
func (r *Server) Close() error {
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
