package control

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/sessiond/sessiond/internal/audit"
)

// actorOf returns the caller of a call, for the audit trail.
func actorOf(ctx context.Context) audit.Actor {
	a := audit.Actor{Name: "local", Role: "admin", Source: "unix"}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return a
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		c := info.State.PeerCertificates[0]
		a.Name = "san:" + c.Subject.CommonName
		if len(c.URIs) > 0 {
			a.Name = "san:" + c.URIs[0].String()
		} else if len(c.DNSNames) > 0 {
			a.Name = "san:" + c.DNSNames[0]
		}
	}
	c, known := callerIn(ctx)
	if !known {
		a.Source = p.Addr.String()
		return a
	}
	switch remote := c.connection.Conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		a.Source = remote.String()
		if user, err := callingUser(c.connection.Conn); err == nil && a.Name == "local" {
			a.Name = fmt.Sprintf("user:%d", user)
		}
	case *net.UnixAddr:
		if user, ok := userOf(c.connection.Conn); ok {
			a.Name = fmt.Sprintf("user:%d", user)
		}
	}
	return a
}
