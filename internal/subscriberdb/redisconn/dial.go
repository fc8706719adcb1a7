package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"
)

// Modes of Dial.
const (
	ModeStandalone = ""         // one server, one url
	ModeSentinel   = "sentinel" // urls of sentinels, with ?master_name=
	ModeCluster    = "cluster"  // urls of some of the nodes
)

// connections is the most connections to a server besides those that wait for feeds. They
// are opened as needed; the default of the client library depends on the number of CPUs.
const connections = 64

// dialAttempts is the number of attempts to open a connection. Callers retry, and find out
// sooner that a server is down.
const dialAttempts = 1

// Dial returns a client for the given urls: redis://, rediss:// (TLS) or unix://, in the
// syntax of redis.ParseURL. Of several urls the first has the user, password, TLS and
// options. Dial does not connect; the client connects and reconnects as needed. Each feed
// that is followed waits on a connection of its own: feeds, their number, is added to the
// limit of connections, unless the first url sets that (pool_size).
func Dial(urls []string, mode string, feeds int) (redis.UniversalClient, error) {
	if len(urls) == 0 {
		return nil, errors.New("redis: no url")
	}
	dial := map[string]func([]string, int, *redials) (redis.UniversalClient, error){
		ModeStandalone: dialServer, ModeSentinel: dialSentinel, ModeCluster: dialCluster,
	}[mode]
	if dial == nil {
		return nil, fmt.Errorf("redis: unknown mode %q, want sentinel or cluster", mode)
	}
	r := &redials{}
	client, err := dial(urls, connections+feeds, r)
	if err != nil {
		return nil, err
	}
	return dialledClient{client, r}, nil
}

func dialServer(urls []string, pool int, r *redials) (redis.UniversalClient, error) {
	if len(urls) > 1 {
		return nil, errors.New("redis: several urls need mode sentinel or cluster")
	}
	o, err := redis.ParseURL(urls[0])
	if err != nil {
		return nil, fmt.Errorf("redis: %w", withoutSecret(err))
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = cmp.Or(o.PoolSize, pool)
	o.DialerRetries = cmp.Or(o.DialerRetries, dialAttempts)
	o.Dialer = r.dialer(o.DialTimeout, o.TLSConfig)
	return redis.NewClient(o), nil
}

func dialSentinel(urls []string, pool int, r *redials) (redis.UniversalClient, error) {
	o, err := redis.ParseFailoverURL(urls[0])
	if err != nil {
		return nil, fmt.Errorf("redis sentinel: %w", withoutSecret(err))
	}
	if o.MasterName == "" {
		return nil, errors.New("redis sentinel: the first url lacks ?master_name=")
	}
	for _, u := range urls[1:] {
		more, err := redis.ParseFailoverURL(u)
		if err != nil {
			return nil, fmt.Errorf("redis sentinel: %w", withoutSecret(err))
		}
		o.SentinelAddrs = append(o.SentinelAddrs, more.SentinelAddrs...)
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = cmp.Or(o.PoolSize, pool)
	o.DialerRetries = cmp.Or(o.DialerRetries, dialAttempts)
	o.Dialer = r.dialer(o.DialTimeout, o.TLSConfig)
	return redis.NewFailoverClient(o), nil
}

func dialCluster(urls []string, pool int, r *redials) (redis.UniversalClient, error) {
	o, err := redis.ParseClusterURL(urls[0])
	if err != nil {
		return nil, fmt.Errorf("redis cluster: %w", withoutSecret(err))
	}
	for _, u := range urls[1:] {
		more, err := redis.ParseClusterURL(u)
		if err != nil {
			return nil, fmt.Errorf("redis cluster: %w", withoutSecret(err))
		}
		o.Addrs = append(o.Addrs, more.Addrs...)
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = cmp.Or(o.PoolSize, pool)
	o.DialerRetries = cmp.Or(o.DialerRetries, dialAttempts)
	o.Dialer = r.dialer(o.DialTimeout, o.TLSConfig)
	return redis.NewClusterClient(o), nil
}

// withoutSecret removes the url, which may contain a password, from the error.
func withoutSecret(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("bad url: %w", u.Err)
	}
	return err
}

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

// dialTimeout is the default of the client library.
const dialTimeout = 5 * time.Second

// A dialer opens connections for the client.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// directDialer dials connections without TLS as directConns.
func directDialer(timeout time.Duration) dialer {
	dial := redis.NewDialer(&redis.Options{DialTimeout: cmp.Or(timeout, dialTimeout)})
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newDirectConn(c)
	}
}

// secureDialer dials connections with TLS. Unlike the client library's dialer it ends with
// the context: a server that hangs must not delay a probe.
func secureDialer(timeout time.Duration, secure *tls.Config) dialer {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: cmp.Or(timeout, dialTimeout)}, Config: secure}
	return d.DialContext
}

// A directConn reads and writes its socket without announcing the system calls to Go's
// scheduler. The socket never blocks, so no other goroutine could use the time; but after
// each announced call the scheduler's monitor checks every 20 us whether it still runs,
// which is a large part of the cost of an exchange with Redis. Waiting, deadlines and Close
// are those of the embedded connection.
type directConn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

func newDirectConn(c net.Conn) (net.Conn, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return c, nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	d := &directConn{Conn: c, raw: raw}
	d.in.number, d.in.run, d.in.wait = unix.SYS_READ, d.in.call, raw.Read
	d.out.number, d.out.run, d.out.wait = unix.SYS_WRITE, d.out.call, raw.Write
	return d, nil
}

// SyscallConn lets the client check a connection before it reuses it.
func (d *directConn) SyscallConn() (syscall.RawConn, error) { return idleCheck{d.raw}, nil }

func (d *directConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, errno, err := d.in.do(p)
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, d.failure("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (d *directConn) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, errno, err := d.out.do(p[written:])
		switch {
		case err != nil:
			return written, err
		case errno != 0:
			return written, d.failure("write", errno)
		}
		written += n
	}
	return written, nil
}

// failure returns an error in the form of the embedded connection.
func (d *directConn) failure(operation string, errno syscall.Errno) error {
	return &net.OpError{
		Op: operation, Net: d.LocalAddr().Network(), Source: d.LocalAddr(), Addr: d.RemoteAddr(),
		Err: os.NewSyscallError(operation, errno),
	}
}

// A transfer is one direction of a connection.
type transfer struct {
	number uintptr                           // of the system call
	wait   func(func(fd uintptr) bool) error // runs a call once the socket may be ready
	run    func(fd uintptr) bool             // transfer.call

	mu     sync.Mutex
	octets []byte
	done   int
	errno  syscall.Errno
}

// do transfers as many of the octets as the socket accepts or has, at least one. err is an
// error of the connection: a deadline, or its end.
func (t *transfer) do(p []byte) (n int, errno syscall.Errno, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.octets = p
	err = t.wait(t.run)
	t.octets = nil
	return t.done, t.errno, err
}

// call makes the system call and reports whether it is complete: it is not if the socket
// was not ready.
func (t *transfer) call(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(t.number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.octets))), uintptr(len(t.octets)))
		switch errno {
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.done, t.errno = int(n), errno
			return true
		}
	}
}

// An idleCheck is used for the client's check of an idle connection: a read that must find
// nothing. It first reads without announcement, and runs the client's read only if there is
// something to read.
type idleCheck struct{ syscall.RawConn }

func (c idleCheck) Read(look func(fd uintptr) bool) error {
	return c.RawConn.Read(func(fd uintptr) bool {
		var octet byte
		_, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&octet)), 1,
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		return errno == unix.EAGAIN || look(fd)
	})
}
