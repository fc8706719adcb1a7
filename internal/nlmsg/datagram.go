package nlmsg

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrTruncated says that a datagram was longer than the buffer for it.
var ErrTruncated = errors.New("netlink datagram is cut short")

// Send sends one datagram to the kernel, which carries out its requests before it returns.
func Send(raw syscall.RawConn, b []byte) error {
	var err error
	if werr := raw.Write(func(fd uintptr) bool {
		_, err = unix.Write(int(fd), b)
		return err != unix.EAGAIN && err != unix.EINTR
	}); werr != nil {
		return werr
	}
	return os.NewSyscallError("sendmsg", err)
}

// Receive waits for the next datagram and returns its length.
func Receive(raw syscall.RawConn, into []byte) (int, error) {
	var n int
	var err error
	if rerr := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), into, unix.MSG_TRUNC)
		return err != unix.EAGAIN && err != unix.EINTR
	}); rerr != nil {
		return 0, rerr
	}
	if err != nil {
		return 0, os.NewSyscallError("recvmsg", err)
	}
	if n > len(into) {
		return 0, fmt.Errorf("%w: it has %d octets", ErrTruncated, n)
	}
	return n, nil
}

// Datagrams is a buffer for the datagrams that one system call receives.
type Datagrams struct {
	headers []unix.Mmsghdr
	vectors []unix.Iovec
	room    []byte
	size    int
}

// NewDatagrams returns a buffer for n datagrams of size octets at most.
func NewDatagrams(n, size int) *Datagrams {
	d := &Datagrams{
		headers: make([]unix.Mmsghdr, n), vectors: make([]unix.Iovec, n), room: make([]byte, n*size), size: size,
	}
	for i := range d.headers {
		d.vectors[i].Base = &d.room[i*size]
		d.vectors[i].SetLen(size)
		d.headers[i].Hdr.Iov = &d.vectors[i]
		d.headers[i].Hdr.SetIovlen(1)
	}
	return d
}

// Receive receives the datagrams queued at a socket, as many as fit, and returns their number.
// It does not wait: unix.EAGAIN means an empty queue. unix.ENOBUFS means that the kernel
// dropped some, and comes before the queued ones.
func (d *Datagrams) Receive(fd uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&d.headers[0])),
			uintptr(len(d.headers)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// At returns the i-th datagram of the last Receive, until the next one; nil for a datagram
// that was cut short.
func (d *Datagrams) At(i int) []byte {
	if d.headers[i].Hdr.Flags&unix.MSG_TRUNC != 0 {
		return nil
	}
	return d.room[i*d.size:][:d.headers[i].Len]
}
