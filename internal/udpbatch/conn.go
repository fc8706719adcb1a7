package udpbatch

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Datagram is a received datagram, or one to send.
type Datagram struct {
	Octets  []byte
	Peer    Address
	Control []byte // control messages
}

// A Conn is a UDP socket that Readers and Writers share.
type Conn struct {
	raw      syscall.RawConn
	segments atomic.Bool // the kernel cuts a message into segments
}

// New returns a Conn for a socket, which the caller still owns.
func New(c *net.UDPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	conn := &Conn{raw: raw}
	// Linux 4.18 cuts segments. 0 is no size for the socket: each message gives its
	// own.
	conn.segments.Store(conn.set(unix.SOL_UDP, unix.UDP_SEGMENT, 0) == nil)
	return conn, nil
}

// Coalesce asks the kernel to join datagrams of one peer and size that arrive
// together; Readers split them again. Readers' buffers should then hold 64 KiB.
// It needs Linux 5.0.
func (c *Conn) Coalesce() error {
	if err := c.set(unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
		return fmt.Errorf("coalesce datagrams: %w", err)
	}
	return nil
}

// Drops returns the number of datagrams that the kernel has dropped at the
// socket, mostly because its receive buffer was full. It wraps. It needs Linux
// 4.12.
func (c *Conn) Drops() (uint32, error) {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	var errno syscall.Errno
	err := c.raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, fmt.Errorf("ask for the drops of a socket: %w", errno)
	}
	return info[unix.SK_MEMINFO_DROPS], nil
}

// AllowFragments lets datagrams arrive over a path with a smaller MTU than
// ours, even if ICMP is filtered. Over IPv4 they are sent without DF, so that
// routers may fragment them (RFC 791 section 3.2). Over IPv6 only the sender
// fragments, and Linux only datagrams above its link's MTU. Their fragments
// then get the minimum MTU of IPv6 (RFC 8200 section 5). Smaller datagrams
// still need Packet Too Big (RFC 8201).
func (c *Conn) AllowFragments() error {
	family, err := c.get(unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("family of the socket: %w", err)
	}
	// A socket of both families sends IPv4 too.
	if err := c.set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT); err != nil {
		return fmt.Errorf("send without DF: %w", err)
	}
	if family == unix.AF_INET6 {
		if err := c.set(unix.IPPROTO_IPV6, unix.IPV6_MTU, minMTU6); err != nil {
			return fmt.Errorf("limit fragments to %d octets: %w", minMTU6, err)
		}
	}
	return nil
}

func (c *Conn) get(level, option int) (value int, err error) {
	if ctlErr := c.raw.Control(func(fd uintptr) {
		value, err = unix.GetsockoptInt(int(fd), level, option)
	}); ctlErr != nil {
		return 0, ctlErr
	}
	return value, err
}

func (c *Conn) set(level, option, value int) error {
	var err error
	if ctlErr := c.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), level, option, value)
	}); ctlErr != nil {
		return ctlErr
	}
	return err
}

// A call is one recvmmsg or sendmmsg.
type call struct {
	number   uintptr
	messages []unix.Mmsghdr
	done     int
	errno    syscall.Errno
}

// run makes the call and reports whether it is over: false if the socket was
// not ready. The call never blocks, so it bypasses the Go scheduler, which
// would cost more than it saves and keep the monitor thread awake.
func (c *call) run(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall6(c.number, fd, uintptr(unsafe.Pointer(&c.messages[0])),
			uintptr(len(c.messages)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			c.done, c.errno = int(n), errno
			return true
		}
	}
}

func (c *call) result() (int, error) {
	if c.errno != 0 {
		return 0, c.errno
	}
	return c.done, nil
}
