package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// errGivenUp is the error of the client's check of a connection that has to be redialled.
var errGivenUp = errors.New("redis: connection given up, its address may lead elsewhere by now")

// A dialledClient is a client whose connections can be redialled.
type dialledClient struct {
	redis.UniversalClient
	redials *redials
}

// redials counts the requests to redial all connections. A virtual address, a load balancer
// or a name may lead to another server by now, but a connection stays with the server it
// was made to. The client checks a connection before it reuses it, and the check fails if
// the connection is older than the last request. Commands under way are completed.
type redials struct{ count atomic.Uint64 }

// abandonConns requests that all present connections are redialled before they are reused.
func (r *redials) abandonConns() { r.count.Add(1) }

// dialer returns a dialer of connections that can be redialled. It resolves names each
// time. Without TLS the connections are directConns.
func (r *redials) dialer(timeout time.Duration, secure *tls.Config) dialer {
	dial := directDialer(timeout)
	if secure != nil {
		dial = secureDialer(timeout, secure)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		born := r.count.Load()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newAgingConn(c, r, born)
	}
}

// An agingConn is a connection that can be redialled.
type agingConn struct {
	net.Conn
	check   syscall.RawConn // for the client's check of the connection itself; nil with TLS
	redials *redials
	born    uint64 // redials.count when it was dialled
}

func newAgingConn(c net.Conn, r *redials, born uint64) (net.Conn, error) {
	a := &agingConn{Conn: c, redials: r, born: born}
	if s, ok := c.(syscall.Conn); ok {
		var err error
		if a.check, err = s.SyscallConn(); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return a, nil
}

// SyscallConn lets the client check the connection before it reuses it.
func (c *agingConn) SyscallConn() (syscall.RawConn, error) { return (*ageCheck)(c), nil }

// An ageCheck is an agingConn during the client's check.
type ageCheck agingConn

// Control implements syscall.RawConn; the client only reads.
func (*ageCheck) Control(func(fd uintptr)) error { return errors.ErrUnsupported }

// Write implements syscall.RawConn; the client only reads.
func (*ageCheck) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Read fails if the connection has to be redialled. A connection with TLS is not checked
// further.
func (c *ageCheck) Read(look func(fd uintptr) bool) error {
	switch {
	case c.redials.count.Load() != c.born:
		return errGivenUp
	case c.check == nil:
		return nil
	}
	return c.check.Read(look)
}
