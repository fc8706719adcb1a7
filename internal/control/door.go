package control

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/sessiond/sessiond/internal/access"
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
	refusals    throttle.Throttle
	handshakes  throttle.Throttle // log lines about failed ones

	mu   sync.Mutex
	open map[*connection]struct{}
}

func (s *Server) newDoor(l net.Listener, secured bool, o *Options) *door {
	return &door{
		Listener: l, server: s, secured: secured, certified: secured && o.TLS.ClientCAFile != "",
		open:        map[*connection]struct{}{},
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
		who := d.callerOf(raw)
		peer := peerOf(raw, &who)
		refused := d.connections.enter(peer)
		if refused == nil {
			d.server.observer.ConnectionOpened()
			c := &connection{Conn: raw, door: d, peer: peer, caller: who}
			c.debt = newDebt(c, d.server.limits.StallTimeout)
			d.mu.Lock()
			d.open[c] = struct{}{}
			d.mu.Unlock()
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

// tellHandshake logs a handshake that failed.
func (d *door) tellHandshake(c *connection, err error) {
	if suppressed, ok := d.handshakes.Allow(d.server.now()); ok {
		d.server.logger.Warn("gRPC handshake failed", "peer", c.peer, "error", err, "suppressed", suppressed)
	}
}

// expel ends the connections whose certificates are not valid any more: those
// that have expired, or, after a change of the client CAs, those of others.
func (d *door) expel(files *tlsFiles, changed bool) {
	now := time.Now()
	for _, c := range d.connected() {
		chain, until := c.certificates()
		if len(chain) == 0 || !changed && now.Before(until) {
			continue
		}
		if err := files.trust(chain); err != nil {
			d.server.logger.Warn("gRPC connection ended, as the certificate of its peer is not valid any more", "peer", c.peer, "error", err)
			c.end(ConnectionUntrusted)
		}
	}
}

// connected returns the connections that are open.
func (d *door) connected() []*connection {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.open))
}

// connection is an admitted connection. It ends if its peer takes nothing for
// the stall timeout of a stream.
type connection struct {
	net.Conn
	door *door
	peer string // as the limits count it
	debt *debt

	mu     sync.Mutex
	caller access.Caller
	chain  []*x509.Certificate // of the caller, the leaf first; none without a certificate
	until  time.Time           // end of the chain's validity
	closed bool
	cause  string // of its end, if the server ends it
}

// identify notes the caller's certificate.
func (c *connection) identify(state *tls.ConnectionState) {
	leaf := state.PeerCertificates[0]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chain, c.until = state.PeerCertificates, lastMoment(state.VerifiedChains)
	c.caller.SANs, c.caller.Subject = access.SANs(leaf.URIs, leaf.DNSNames), toText(leaf.Subject.String())
}

// who returns the caller.
func (c *connection) who() *access.Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	who := c.caller
	return &who
}

// certificates returns the caller's chain, and the end of its validity.
func (c *connection) certificates() ([]*x509.Certificate, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.chain, c.until
}

// Causes of the end of a connection.
const (
	ConnectionStalled   = "stalled"   // its peer took nothing
	ConnectionUntrusted = "untrusted" // the certificate of its peer is not valid any more
	ConnectionEnded     = "ended"     // by its peer, a failed handshake, or the end of the daemon
)

// ConnectionCauses returns all causes of the end of a connection.
func ConnectionCauses() []string {
	return []string{ConnectionStalled, ConnectionUntrusted, ConnectionEnded}
}

// Write implements net.Conn.
func (c *connection) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.door.server.limits.StallTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.end(ConnectionStalled)
	}
	return n, err
}

// end closes a connection for a cause of the server's.
func (c *connection) end(cause string) {
	c.mu.Lock()
	c.cause = cause
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
	c.door.mu.Lock()
	delete(c.door.open, c)
	c.door.mu.Unlock()
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
