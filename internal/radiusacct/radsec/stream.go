package radsec

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
	// writeTimeout bounds the time of writing a batch of replies.
	writeTimeout = 10 * time.Second
	// streamBacklog bounds the unsent replies to a client, in octets: the longest reply to
	// each identifier.
	streamBacklog = 256 * radius.MaxPacketLength
)

// Causes of the end of a connection, for [Service.Closed].
const (
	ClosedByPeer    = "peer"      // the client closed it
	ClosedIdle      = "idle"      // nothing was received, or a packet never ended
	ClosedViolation = "violation" // a packet after which the stream is unreliable (RFC 6613 section 2.6.4)
	ClosedStalled   = "stalled"   // the client does not read its replies
	ClosedRevoked   = "revoked"   // the client is no longer configured
	ClosedFailed    = "failed"    // the network or TLS failed
	ClosedShutdown  = "shutdown"
)

// ClosingCauses returns all causes of the end of a connection.
func ClosingCauses() []string {
	return []string{
		ClosedByPeer, ClosedIdle, ClosedViolation, ClosedStalled, ClosedRevoked, ClosedFailed, ClosedShutdown,
	}
}

// A Stream is one connection whose client is known. One goroutine reads it, another writes
// it; Send waits for neither.
type Stream struct {
	server       *Server
	conversation Conversation
	conn         *tls.Conn
	raw          net.Conn // the TCP connection: closing it never blocks
	source       netip.AddrPort
	identity     Identity
	client       string // its name at admission
	framer       framer
	deadline     time.Time // of the present read
	stopping     atomic.Bool
	cause        string         // one of the Closed constants, once reading ended
	writing      sync.WaitGroup // the writer

	mu      sync.Mutex
	some    sync.Cond // signals that pending or closing has changed
	pending []byte    // replies
	spare   []byte    // buffer for the next pending
	closing bool      // Send ignores further replies
	stalled bool
}

func newStream(server *Server, conn *tls.Conn, raw net.Conn, source netip.AddrPort, who Identity) *Stream {
	s := &Stream{server: server, conn: conn, raw: raw, source: source, identity: who, framer: newFramer()}
	s.some.L = &s.mu
	s.conversation = server.service.Converse(s)
	return s
}

// Source returns the peer's address.
func (s *Stream) Source() netip.AddrPort { return s.source }

// Identity returns the client's proved identity.
func (s *Stream) Identity() Identity { return s.identity }

// read serves packets until the connection ends, and returns the cause.
func (s *Stream) read() string {
	for {
		p, malformed := s.framer.next()
		switch {
		case malformed != nil:
			s.conversation.Refuse(malformed)
			return ClosedViolation
		case p == nil:
			if cause := s.fill(); cause != "" {
				return cause
			}
		default:
			if cause := s.servePacket(p); cause != "" {
				return cause
			}
		}
	}
}

// fill reads once, or returns the cause of the end. An incomplete packet must end within
// packetTimeout, however steadily its octets come.
func (s *Stream) fill() string {
	now := time.Now()
	switch {
	case !s.framer.partial():
		s.deadline = now.Add(s.server.options.IdleTimeout)
	case s.deadline.After(now.Add(packetTimeout)):
		s.deadline = now.Add(packetTimeout)
	}
	if err := s.raw.SetReadDeadline(s.deadline); err != nil {
		return s.causeOf(err)
	}
	// stop and Revoke change the state first and set the deadline afterwards. So either
	// dismissed or the deadline ends the stream.
	if cause := s.dismissed(); cause != "" {
		return cause
	}
	return s.causeOf(s.framer.fill(s.conn))
}

// servePacket serves one packet. A request without a good answer is ignored, as in a datagram,
// unless it makes the following octets unreliable.
func (s *Stream) servePacket(p wire.Packet) string {
	switch {
	case s.conversation.Client() == "":
		return ClosedRevoked
	case s.conversation.Serve(p):
		return ClosedViolation
	}
	return ""
}

// dismissed returns the cause if the server ends the connection, else "".
func (s *Stream) dismissed() string {
	switch {
	case s.stopping.Load():
		return ClosedShutdown
	case s.conversation.Client() == "":
		return ClosedRevoked
	}
	return ""
}

// causeOf returns the cause of a read error; empty for nil.
func (s *Stream) causeOf(err error) string {
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
func (s *Stream) stop() {
	s.stopping.Store(true)
	s.wake()
}

// wake interrupts the read, so that the reader checks dismissed.
func (s *Stream) wake() { _ = s.raw.SetReadDeadline(time.Unix(1, 0)) }

// Send passes a copy of a reply to the writer. It never waits: a client that does not read
// its replies loses the connection. It may be called concurrently.
func (s *Stream) Send(reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	if len(s.pending)+len(reply) > streamBacklog {
		s.failLocked(true)
		return
	}
	s.pending = append(s.pending, reply...)
	s.some.Signal()
}

// failLocked closes the connection, because replies cannot be written.
func (s *Stream) failLocked(stalled bool) {
	s.stalled = s.stalled || stalled
	s.closing, s.pending = true, nil
	s.raw.Close()
	s.some.Signal()
}

// finish makes the writer end once all replies are written.
func (s *Stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	s.some.Signal()
}

// write writes replies, many at once under load, until finish.
func (s *Stream) write() {
	for batch := s.batch(); len(batch) > 0; batch = s.batch() {
		_ = s.raw.SetWriteDeadline(time.Now().Add(writeTimeout)) // Write returns the same error
		if _, err := s.conn.Write(batch); err != nil {
			s.mu.Lock()
			s.failLocked(errors.Is(err, os.ErrDeadlineExceeded))
			s.mu.Unlock()
			return
		}
	}
	_ = s.conn.Close() // close_notify fails if the peer is gone
}

// batch waits for replies and returns all of them; none after the last.
func (s *Stream) batch() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.pending) == 0 && !s.closing {
		s.some.Wait()
	}
	batch := s.pending
	s.pending, s.spare = s.spare[:0], batch
	return batch
}
