package conntrack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

const (
	// commandBuffer holds the answers to a whole batch of requests.
	commandBuffer = 4 << 20
	// datagramSize is more than the 32 KiB at most that the kernel puts into
	// one datagram of a dump.
	datagramSize = 64 << 10
)

// conn is a netlink socket for requests; one goroutine uses it at a time.
type conn struct {
	nl  *netlink.Conn
	raw syscall.RawConn
	seq uint32
	in  []byte
	out []byte // the last request
}

// dial opens a socket in a namespace, whose receive buffer has the given size in octets,
// or the largest size below it that the kernel allows.
func dial(space netns.Namespace, receiveBuffer int) (*conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: space.FD()})
	if err != nil {
		return nil, fmt.Errorf("dial ctnetlink: %w", err)
	}
	c, err := newConn(nl, receiveBuffer)
	if err != nil {
		nl.Close()
		return nil, err
	}
	return c, nil
}

func newConn(nl *netlink.Conn, receiveBuffer int) (*conn, error) {
	if err := enlarge(nl, receiveBuffer); err != nil {
		return nil, fmt.Errorf("set receive buffer: %w", err)
	}
	if err := nl.SetOption(netlink.CapAcknowledge, true); err != nil {
		return nil, fmt.Errorf("set short acknowledgements: %w", err)
	}
	raw, err := nl.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &conn{nl: nl, raw: raw}, nil
}

// enlarge halves the size until the kernel takes it. Privileged sockets get the size that
// they ask for; others get net.core.rmem_max without an error.
func enlarge(nl *netlink.Conn, size int) error {
	for {
		err := nl.SetReadBuffer(size)
		if err == nil || size <= os.Getpagesize() {
			return err
		}
		size /= 2
	}
}

func (c *conn) close() error { return c.nl.Close() }

// cancelWith makes reads fail once ctx is done, until stop is called. stop reports whether
// the socket may be used again.
func (c *conn) cancelWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.nl.SetReadDeadline(time.Unix(1, 0)) })
}

// receive returns the next datagram, valid until the next call.
func (c *conn) receive() ([]byte, error) {
	if c.in == nil {
		c.in = make([]byte, datagramSize)
	}
	n, err := nlmsg.Receive(c.raw, c.in)
	return c.in[:n], err
}

// errno returns the code of a NLMSG_ERROR or NLMSG_DONE message; 0 is success.
func errno(m nlmsg.Message) (unix.Errno, error) {
	code, ok := m.Errno()
	if !ok {
		return 0, errMalformed
	}
	return code, nil
}

// Idle sockets.

// keptConns is the number of idle request sockets that a pool keeps open.
const keptConns = 4

var errClosed = errors.New("conntrack table is closed")

// pool keeps sockets for requests.
type pool struct {
	space  netns.Namespace
	mu     sync.Mutex
	idle   []*conn
	closed bool
}

// with runs fn on a socket of its own. A socket on which fn failed is closed, because the
// rest of an answer may still be queued in it.
func (p *pool) with(ctx context.Context, fn func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := p.get()
	if err != nil {
		return err
	}
	stop := c.cancelWith(ctx)
	err = fn(c)
	if clean := stop(); !clean || err != nil {
		_ = c.close()
	} else {
		p.put(c)
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (p *pool) get() (*conn, error) {
	if c, err := p.idleConn(); c != nil || err != nil {
		return c, err
	}
	return dial(p.space, commandBuffer)
}

// idleConn returns an idle socket, nil when there is none.
func (p *pool) idleConn() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	n := len(p.idle)
	if n == 0 {
		return nil, nil
	}
	c := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c, nil
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= keptConns {
		_ = c.close()
		return
	}
	p.idle = append(p.idle, c)
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, c := range p.idle {
		errs = append(errs, c.close())
	}
	p.idle = nil
	return errors.Join(append(errs, p.space.Close())...)
}
