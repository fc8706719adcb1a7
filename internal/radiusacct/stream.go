package radiusacct

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"layeh.com/radius"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

const (
	// packetTimeout bounds the time from the first octet of a packet to its last.
	packetTimeout = 10 * time.Second
	// writeTimeout bounds the time in which a client takes a batch of replies.
	writeTimeout = 10 * time.Second
	// streamBacklog bounds the replies that a client has not taken, in octets:
	// the longest to each identifier.
	streamBacklog = 256 * radius.MaxPacketLength
	// streamCache bounds the duplicate cache of a connection, in octets. There
	// are 256 identifiers, so it is full only of the longest Proxy-States.
	streamCache = 1 << 20
)

// Why a connection ended, as handed to [Observer.ConnectionClosed].
const (
	ClosedByPeer    = "peer"      // the client closed it
	ClosedIdle      = "idle"      // nothing came, or a packet never ended
	ClosedViolation = "violation" // a packet that leaves no trust in the next (RFC 6613 section 2.6.4)
	ClosedStalled   = "stalled"   // the client does not take its replies
	ClosedRevoked   = "revoked"   // the client is no longer configured
	ClosedFailed    = "failed"    // the network or TLS failed
	ClosedShutdown  = "shutdown"
)

// A stream is one RadSec connection whose client is known. One goroutine reads
// it, another writes it; workers hand over replies without waiting for either.
type stream struct {
	*handler
	conn       *tls.Conn
	raw        net.Conn // beneath it: closing this never blocks
	source     netip.AddrPort
	who        identity
	peer       *clientState // the client that it was admitted as
	table      *clientTable // where client is from
	client     *client
	duplicates *replyCache
	framer     framer
	deadline   time.Time // for what is read now
	stopping   atomic.Bool
	cause      string         // one of the Closed constants, once reading ended
	writing    sync.WaitGroup // the writer

	mu      sync.Mutex
	some    sync.Cond // there is something to write, or nothing will be
	pending []byte    // replies
	spare   []byte    // room for the next pending
	ending  bool      // nothing more is taken
	stalled bool
}

func newStream(server *Server, conn *tls.Conn, raw net.Conn, source netip.AddrPort, who identity) *stream {
	s := &stream{
		conn: conn, raw: raw, source: source, who: who,
		duplicates: newDuplicates(streamCache, server.now()),
		framer:     newFramer(),
	}
	s.some.L = &s.mu
	s.handler = newIntake(server, s)
	return s
}

// current is the client as configured now; nil when it no longer is.
func (s *stream) current() *client {
	if table := s.server.clients.Load(); table != s.table {
		s.table, s.client = table, s.who.client(table)
	}
	return s.client
}

// read serves packets until the connection ends, and returns why.
func (s *stream) read() string {
	for {
		p, malformed := s.framer.next()
		switch {
		case malformed != nil:
			s.server.refused(s.incoming(nil), TypeUnread, faultOf(malformed))
			return ClosedViolation
		case p == nil:
			if cause := s.fill(); cause != "" {
				return cause
			}
		default:
			if cause := s.take(p); cause != "" {
				return cause
			}
		}
	}
}

// fill reads some more, or returns why there is no more. A packet that has begun
// must end in time, however steadily it trickles.
func (s *stream) fill() string {
	now := time.Now()
	switch {
	case !s.framer.partial():
		s.deadline = now.Add(s.server.options.RadSec.IdleTimeout)
	case s.deadline.After(now.Add(packetTimeout)):
		s.deadline = now.Add(packetTimeout)
	}
	if err := s.raw.SetReadDeadline(s.deadline); err != nil {
		return s.causeOf(err)
	}
	// Who dismisses a stream tells so first and moves the deadline afterwards:
	// one of the two is noticed.
	if cause := s.dismissed(); cause != "" {
		return cause
	}
	return s.causeOf(s.framer.fill(s.conn))
}

// take serves one packet. A request without a good answer is ignored, as in a
// datagram, except when it leaves no trust in the next.
func (s *stream) take(p wire.Packet) string {
	if s.current() == nil {
		return ClosedRevoked
	}
	in := s.incoming(p)
	kind, err := s.serve(in)
	s.forget() // add has copied the replies
	if err == nil {
		return ""
	}
	s.server.refused(in, kind, err)
	if err.fatal {
		return ClosedViolation
	}
	return ""
}

func (s *stream) incoming(p wire.Packet) *incoming {
	return &incoming{
		octets:     p,
		client:     s.client,
		duplicates: s.duplicates,
		source:     s.source,
		way:        replyPath{stream: s},
		arrival:    s.server.now(),
		patient:    true,
	}
}

// dismissed returns why the server ends the connection, if it does.
func (s *stream) dismissed() string {
	switch {
	case s.stopping.Load():
		return ClosedShutdown
	case s.current() == nil:
		return ClosedRevoked
	}
	return ""
}

// causeOf returns why reading failed; empty when it did not.
func (s *stream) causeOf(err error) string {
	if err == nil {
		return ""
	}
	if cause := s.dismissed(); cause != "" {
		return cause
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stalled:
		return ClosedStalled
	case errors.Is(err, io.EOF):
		return ClosedByPeer
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ClosedIdle
	}
	return ClosedFailed
}

// stop ends reading.
func (s *stream) stop() {
	s.stopping.Store(true)
	s.wake()
}

// wake lets the reader notice that it is dismissed. To others it looks like the
// end of their idle time.
func (s *stream) wake() { _ = s.raw.SetReadDeadline(time.Unix(1, 0)) }

// add hands a reply to the writer. It never waits: a client that does not take
// its replies loses the connection.
func (s *stream) add(_ *replyPath, reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	if len(s.pending)+len(reply) > streamBacklog {
		s.failLocked(true)
		return
	}
	s.pending = append(s.pending, reply...)
	s.some.Signal()
}

// failLocked gives the connection up, because replies cannot be written.
func (s *stream) failLocked(stalled bool) {
	s.stalled = s.stalled || stalled
	s.ending, s.pending = true, nil
	s.raw.Close()
	s.some.Signal()
}

// finish lets the writer end once all replies are written.
func (s *stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	s.some.Signal()
}

// write writes replies, many at once under load, until finish.
func (s *stream) write() {
	for batch := s.batch(); len(batch) > 0; batch = s.batch() {
		_ = s.raw.SetWriteDeadline(time.Now().Add(writeTimeout)) // Write tells the same
		if _, err := s.conn.Write(batch); err != nil {
			s.mu.Lock()
			s.failLocked(errors.Is(err, os.ErrDeadlineExceeded))
			s.mu.Unlock()
			return
		}
	}
	_ = s.conn.Close() // tells the peer, who may be gone
}

// batch waits for replies and takes them all; none means that there will be none.
func (s *stream) batch() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.pending) == 0 && !s.ending {
		s.some.Wait()
	}
	batch := s.pending
	s.pending, s.spare = s.spare[:0], batch
	return batch
}
