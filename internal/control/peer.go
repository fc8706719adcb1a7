package control

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc/peer"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/peercred"
	"github.com/sessiond/sessiond/internal/quota"
)

// callerOf returns the other end of a connection, without its certificate, which
// is not known before the handshake.
func (d *door) callerOf(c net.Conn) access.Caller {
	who := access.Caller{Source: c.RemoteAddr().String(), Private: d.secured}
	if _, ok := c.(*net.UnixConn); ok {
		who = access.Caller{Way: access.Socket, Source: "unix", Private: true}
		if user, groups, err := peercred.Unix(c); err == nil {
			who.User, who.Groups = &user, groups
		}
		return who
	}
	address, tcp := d.Addr().(*net.TCPAddr)
	switch {
	case d.certified:
		who.Way = access.Certificate
	case tcp && address.IP.IsLoopback():
		who.Way, who.Private = access.Loopback, true
		if user, err := peercred.TCP(c); err == nil {
			who.User = &user
		}
	}
	return who
}

// peerOf returns the peer to which the limits count a connection.
func peerOf(c net.Conn, who *access.Caller) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return quota.PeerOf(a)
	}
	if who.Way == access.Socket && who.User != nil {
		return fmt.Sprintf("user %d", *who.User)
	}
	return c.RemoteAddr().Network()
}

// callerIn returns the caller of a call.
func callerIn(ctx context.Context) (caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, false
	}
	c, ok := p.Addr.(caller)
	return c, ok
}
