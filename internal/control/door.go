package control

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/sessiond/sessiond/internal/throttle"
)

// door is a listener with limits on its connections and streams.
type door struct {
	net.Listener
	server      *Server
	connections *tally
	streams     *tally
	secured     bool // by TLS
	certified   bool // callers show certificates
	role        LocalRole
	advice      string // for callers that may only read
	refusals    throttle.Throttle
}

func (s *Server) newDoor(l net.Listener, secured bool, o *Options) *door {
	advice := "set grpc.local_role: admin, or call as root or as the user of sessiond"
	if o.Socket != "" {
		advice = "call over unix:" + o.Socket + ", for which its group is needed, or as root"
	}
	return &door{
		Listener: l, server: s, secured: secured, certified: o.TLS.ClientCAFile != "",
		role: o.LocalRole, advice: advice,
		connections: newTally("connections", s.limits.Connections, s.limits.ConnectionsPerPeer),
		streams:     newTally("streams", s.limits.Streams, s.limits.StreamsPerPeer),
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		raw, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerOf(raw)
		refused := d.connections.enter(peer)
		if refused == nil {
			d.server.observer.ConnectionOpened()
			c := &connection{Conn: raw, door: d, peer: peer, viewer: d.restrict(raw)}
			c.debt = newDebt(c, d.server.limits.StallTimeout)
			return c, nil
		}
		d.turnAway(raw, peer, refused)
	}
}

// turnAway closes a connection that is not served. It sends the reason first if
// the connection is plain: HTTP/2 has a small frame for it.
func (d *door) turnAway(raw net.Conn, peer string, refused *limitError) {
	d.server.observer.ConnectionRefused(refused.cause)
	if suppressed, ok := d.refusals.Allow(d.server.now()); ok {
		d.server.logger.Warn("gRPC connection refused", "peer", peer, "cause", refused.cause, "error", refused, "suppressed", suppressed)
	}
	if !d.secured && raw.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
		frames := http2.NewFramer(raw, nil)
		if frames.WriteSettings() == nil {
			_ = frames.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte(refused.text))
		}
	}
	_ = raw.Close()
}

// connection is an admitted connection. It ends if its peer takes nothing for
// the stall timeout of a stream.
type connection struct {
	net.Conn
	door *door
	peer string // as the limits count it

	viewer *viewerError // error for changes, if the caller may only read
	debt   *debt

	mu     sync.Mutex
	closed bool
	cause  string // of its end, if the server ends it
}

// Causes of the end of a connection.
const (
	ConnectionStalled = "stalled" // its peer took nothing
	ConnectionEnded   = "ended"   // by its peer, a failed handshake, or the end of the daemon
)

// ConnectionCauses returns all causes of the end of a connection.
func ConnectionCauses() []string { return []string{ConnectionStalled, ConnectionEnded} }

// Write implements net.Conn.
func (c *connection) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.door.server.limits.StallTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.abandon()
	}
	return n, err
}

// abandon closes a connection whose peer does not take its replies.
func (c *connection) abandon() {
	c.mu.Lock()
	c.cause = ConnectionStalled
	c.mu.Unlock()
	_ = c.Close()
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.Conn.Close()
	}
	c.closed = true
	cause := c.cause
	c.mu.Unlock()
	err := c.Conn.Close()
	c.debt.forget()
	if cause == "" {
		cause = ConnectionEnded
	}
	c.door.connections.Leave(c.peer)
	c.door.server.observer.ConnectionClosed(cause)
	return err
}

// leaveStream counts a stream out. After a stall gRPC keeps up to 64 KiB of
// untaken data until the reader takes it or the connection ends; debt sees to
// that end.
func (c *connection) leaveStream() { c.door.streams.Leave(c.peer) }

// RemoteAddr returns an address that contains the connection, because gRPC
// passes only this address to the calls.
func (c *connection) RemoteAddr() net.Addr { return caller{c.Conn.RemoteAddr(), c} }

// caller is the address of a peer, with its connection.
type caller struct {
	net.Addr
	connection *connection
}
