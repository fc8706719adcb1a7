package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"
)

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
