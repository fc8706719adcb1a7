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

// errGivenUp is the error of the client's check of a connection that was given up.
var errGivenUp = errors.New("redis: connection given up, its address may lead elsewhere by now")

// A dialledClient is a client whose connections can be given up.
type dialledClient struct {
	redis.UniversalClient
	redials *redials
}

// redials counts how often connections were given up. A virtual address, a balancer or
// a name may lead to another server by now; connections stay with the one they were
// made to. The client checks a connection before it uses it again, and then finds that
// it was given up: commands under way on it come to their end.
type redials struct{ count atomic.Uint64 }

// giveUp has all connections that there are dialled again before they are used again.
func (r *redials) giveUp() { r.count.Add(1) }

// dialer dials connections that can be given up. Names are looked up each time.
// Without TLS they are directConns.
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

// An agingConn is a connection that can be given up.
type agingConn struct {
	net.Conn
	check   syscall.RawConn // by which the client checks the connection itself; nil with TLS
	redials *redials
	born    uint64 // the count of redials when it was dialled
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

// SyscallConn lets the client check the connection before it uses it again.
func (c *agingConn) SyscallConn() (syscall.RawConn, error) { return (*ageCheck)(c), nil }

// An ageCheck is an agingConn as the client checks it.
type ageCheck agingConn

// Control implements syscall.RawConn; the client only reads.
func (*ageCheck) Control(func(fd uintptr)) error { return errors.ErrUnsupported }

// Write implements syscall.RawConn; the client only reads.
func (*ageCheck) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Read fails where the connection was given up. Below TLS nothing can be checked.
func (c *ageCheck) Read(look func(fd uintptr) bool) error {
	switch {
	case c.redials.count.Load() != c.born:
		return errGivenUp
	case c.check == nil:
		return nil
	}
	return c.check.Read(look)
}
