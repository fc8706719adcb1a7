package radsec

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

// acceptPause is the time without accepting after the system refused it, for
// want of file descriptors mostly.
const acceptPause = 50 * time.Millisecond

// A Service is behind the connections. Its methods are called from several goroutines.
type Service interface {
	// Identify returns the name of the client that has an identity now, "" for nobody.
	Identify(Identity) string
	// Converse returns what serves the packets of a connection.
	Converse(*Stream) Conversation

	// Opened is called for each connection whose client is known.
	Opened(client string)
	// Closed is called when such a connection ended, with one of the Closed constants.
	Closed(client string, source netip.AddrPort, cause string)
	// Refused is called for each other connection, with one of the Refused constants.
	// Client is empty when there is none.
	Refused(client string, source netip.AddrPort, cause string, err error)
	// AcceptFailed is called when the system gave no connection.
	AcceptFailed(err error)

	// Now is the clock of certificates.
	Now() time.Time
}

// A Conversation is the service's side of one connection. One goroutine calls it.
type Conversation interface {
	// Client returns the name of the client whose connection it is now, "" when it no
	// longer is anybody's.
	Client() string
	// Serve serves a packet, which is valid until it returns, and reports whether it
	// leaves no trust in the next. Replies go to [Stream.Send], then or later.
	Serve(p wire.Packet) (fatal bool)
	// Refuse is told of octets that are no packet.
	Refuse(*wire.Malformed)
}

// A Server accepts connections and owns their goroutines.
type Server struct {
	service   Service
	options   Options
	listeners []net.Listener
	admission *admission

	connections sync.WaitGroup // goroutines of connections
	reading     sync.WaitGroup // those of them that still read
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

// Run accepts until Interrupt, and returns when nobody reads any more.
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
			r.take(ctx, conn)
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			r.service.AcceptFailed(err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		}
	}
}

// take starts a connection, if there is room for it.
func (r *Server) take(ctx context.Context, conn net.Conn) {
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

// serveConn reads a connection to its end. It returns nil for one that was refused.
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

// finish ends a connection. When the server stops, the replies to what was
// read still go out.
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

// enter makes a stream known to Interrupt and Revoke.
func (r *Server) enter(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[s] = struct{}{}
	if r.stopping {
		s.stop()
	}
}

// Revoke ends the connections of clients that are no longer known.
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

// Drain ends the connections, after the last reply was handed over, within the
// given time.
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
