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
	// writeTimeout bounds the time in which a client takes a batch of replies.
	writeTimeout = 10 * time.Second
	// streamBacklog bounds the replies that a client has not taken, in octets:
	// the longest to each identifier.
	streamBacklog = 256 * radius.MaxPacketLength
)

// Why a connection ended, as handed to [Service.Closed].
const (
	ClosedByPeer    = "peer"      // the client closed it
	ClosedIdle      = "idle"      // nothing came, or a packet never ended
	ClosedViolation = "violation" // a packet that leaves no trust in the next (RFC 6613 section 2.6.4)
	ClosedStalled   = "stalled"   // the client does not take its replies
	ClosedRevoked   = "revoked"   // the client is no longer configured
	ClosedFailed    = "failed"    // the network or TLS failed
	ClosedShutdown  = "shutdown"
)

// ClosingCauses returns why a connection may end.
func ClosingCauses() []string {
	return []string{
		ClosedByPeer, ClosedIdle, ClosedViolation, ClosedStalled, ClosedRevoked, ClosedFailed, ClosedShutdown,
	}
}

// A Stream is one connection whose client is known. One goroutine reads it, another
// writes it; those who send replies wait for neither.
type Stream struct {
	server       *Server
	conversation Conversation
	conn         *tls.Conn
	raw          net.Conn // beneath it: closing this never blocks
	source       netip.AddrPort
	identity     Identity
	client       string // that it was admitted as
	framer       framer
	deadline     time.Time // for what is read now
	stopping     atomic.Bool
	cause        string         // one of the Closed constants, once reading ended
	writing      sync.WaitGroup // the writer

	mu      sync.Mutex
	some    sync.Cond // there is something to write, or nothing will be
	pending []byte    // replies
	spare   []byte    // room for the next pending
	ending  bool      // nothing more is taken
	stalled bool
}

func newStream(server *Server, conn *tls.Conn, raw net.Conn, source netip.AddrPort, who Identity) *Stream {
	s := &Stream{server: server, conn: conn, raw: raw, source: source, identity: who, framer: newFramer()}
	s.some.L = &s.mu
	s.conversation = server.service.Converse(s)
	return s
}

// Source returns the address that the connection comes from.
func (s *Stream) Source() netip.AddrPort { return s.source }

// Identity returns what its client has proved about itself.
func (s *Stream) Identity() Identity { return s.identity }

// read serves packets until the connection ends, and returns why.
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
			if cause := s.take(p); cause != "" {
				return cause
			}
		}
	}
}

// fill reads some more, or returns why there is no more. A packet that has begun
// must end in time, however steadily it trickles.
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
	// Who dismisses a stream tells so first and moves the deadline afterwards:
	// one of the two is noticed.
	if cause := s.dismissed(); cause != "" {
		return cause
	}
	return s.causeOf(s.framer.fill(s.conn))
}

// take serves one packet. A request without a good answer is ignored, as in a
// datagram, except when it leaves no trust in the next.
func (s *Stream) take(p wire.Packet) string {
	switch {
	case s.conversation.Client() == "":
		return ClosedRevoked
	case s.conversation.Serve(p):
		return ClosedViolation
	}
	return ""
}

// dismissed returns why the server ends the connection, if it does.
func (s *Stream) dismissed() string {
	switch {
	case s.stopping.Load():
		return ClosedShutdown
	case s.conversation.Client() == "":
		return ClosedRevoked
	}
	return ""
}

// causeOf returns why reading failed; empty when it did not.
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

// wake lets the reader notice that it is dismissed. To others it looks like the
// end of their idle time.
func (s *Stream) wake() { _ = s.raw.SetReadDeadline(time.Unix(1, 0)) }

// Send hands a copy of a reply to the writer. It never waits: a client that does not take
// its replies loses the connection. It may be called concurrently.
func (s *Stream) Send(reply []byte) {
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
func (s *Stream) failLocked(stalled bool) {
	s.stalled = s.stalled || stalled
	s.ending, s.pending = true, nil
	s.raw.Close()
	s.some.Signal()
}

// finish lets the writer end once all replies are written.
func (s *Stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	s.some.Signal()
}

// write writes replies, many at once under load, until finish.
func (s *Stream) write() {
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
func (s *Stream) batch() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.pending) == 0 && !s.ending {
		s.some.Wait()
	}
	batch := s.pending
	s.pending, s.spare = s.spare[:0], batch
	return batch
}
