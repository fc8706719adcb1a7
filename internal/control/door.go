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

// door is a listener that admits no more connections than it may.
type door struct {
	net.Listener
	server      *Server
	connections *tally
	streams     *tally
	secured     bool // by TLS
	certified   bool // callers show certificates
	role        LocalRole
	advice      string // for who may only read
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

// turnAway closes a connection that is not served, and says why where that can be
// said in few octets: HTTP/2 has a frame for it.
func (d *door) turnAway(raw net.Conn, peer string, refused *limitError) {
	d.server.observer.ConnectionRefused(refused.cause)
	if suppressed, ok := d.refusals.Allow(d.server.now()); ok {
		d.server.logger.Warn("gRPC connection refused", "peer", peer, "cause", refused.cause, "err", refused, "suppressed", suppressed)
	}
	if !d.secured && raw.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
		frames := http2.NewFramer(raw, nil)
		if frames.WriteSettings() == nil {
			_ = frames.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte(refused.text))
		}
	}
	_ = raw.Close()
}

// connection is one that was admitted. It ends when its peer takes nothing off the
// wire for as long as a stream may stall.
type connection struct {
	net.Conn
	door *door
	peer string // whom limits count

	viewer *viewerError // what to tell one who may only read
	debt   *debt

	mu     sync.Mutex
	closed bool
	cause  string // why it ends, where the server ends it
}

// Why a connection ended.
const (
	ConnectionStalled = "stalled" // its peer took nothing
	ConnectionEnded   = "ended"   // by its peer, its handshake, or the end of the daemon
)

// ConnectionCauses returns why connections end.
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

// abandon closes a connection whose peer does not take what it asked for.
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

// leaveStream counts a stream out. Of one that stalled gRPC keeps what was not taken, up
// to 64 KiB, until its reader takes it or the connection goes, as debt sees to.
func (c *connection) leaveStream() { c.door.streams.Leave(c.peer) }

// RemoteAddr returns an address that leads back to the connection: gRPC hands it on
// to the calls, and nothing else of the connection.
func (c *connection) RemoteAddr() net.Addr { return caller{c.Conn.RemoteAddr(), c} }

// caller is the address of a peer, and the connection by which it calls.
type caller struct {
	net.Addr
	connection *connection
}
