package control

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/peer"

	"github.com/sessiond/sessiond/internal/quota"
)

// peerOf returns the peer to which the limits count a connection.
func peerOf(c net.Conn) string {
	switch a := c.RemoteAddr().(type) {
	case *net.TCPAddr:
		return quota.PeerOf(a)
	case *net.UnixAddr:
		if user, ok := userOf(c); ok {
			return fmt.Sprintf("user %d", user)
		}
	}
	return c.RemoteAddr().Network()
}

// userOf returns the user at the other end of a unix socket.
func userOf(c net.Conn) (uint32, bool) {
	socket, ok := c.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, false
	}
	var who *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || failed != nil {
		return 0, false
	}
	return who.Uid, true
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
