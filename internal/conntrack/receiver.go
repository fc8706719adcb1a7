package conntrack

import (
	"context"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/netns"
)

const (
	// eventBuffer is the receive buffer asked for: about a second of 100,000
	// new sessions/s. It is a bound; memory is used as events wait.
	eventBuffer = 128 << 20
	// eventsPerRead is how many events one system call fetches, and for how many
	// the index is locked once.
	eventsPerRead = 128
	// eventSize is more than any event of an IPv4 entry takes (about 300 octets).
	eventSize = 2048
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// receiver fetches many events with one system call.
type receiver struct {
	nl    *netlink.Conn
	raw   syscall.RawConn
	buf   []byte
	iov   [eventsPerRead]unix.Iovec
	slots [eventsPerRead]mmsghdr
}

func newReceiver(space netns.Namespace, buffer int) (*receiver, error) {
	c, err := dial(space, buffer)
	if err != nil {
		return nil, err
	}
	r := &receiver{nl: c.nl, raw: c.raw, buf: make([]byte, eventsPerRead*eventSize)}
	for i := range r.slots {
		r.iov[i].Base = &r.buf[i*eventSize]
		r.iov[i].SetLen(eventSize)
		r.slots[i].hdr.Iov = &r.iov[i]
		r.slots[i].hdr.SetIovlen(1)
	}
	return r, nil
}

// join subscribes to what begins and what ends an entry.
func (r *receiver) join() error {
	for _, group := range []uint32{groupNew, groupDestroy} {
		if err := r.nl.JoinGroup(group); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) leave() {
	for _, group := range []uint32{groupNew, groupDestroy} {
		_ = r.nl.LeaveGroup(group)
	}
}

// cancelWith makes receive fail once ctx is done, until stop is called.
func (r *receiver) cancelWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = r.nl.SetReadDeadline(time.Unix(1, 0)) })
}

// receive fetches up to eventsPerRead datagrams. With wait it waits for the
// first one, without it returns 0 when there is none. ENOBUFS says that the
// kernel dropped events, and that it goes on dropping until nothing is queued.
func (r *receiver) receive(wait bool) (int, error) {
	var n uintptr
	var code syscall.Errno
	err := r.raw.Read(func(fd uintptr) bool {
		for {
			n, _, code = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.slots[0])),
				eventsPerRead, unix.MSG_DONTWAIT, 0, 0)
			if code != unix.EINTR {
				return code != unix.EAGAIN || !wait
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case code == unix.EAGAIN:
		return 0, nil
	case code != 0:
		return 0, os.NewSyscallError("recvmmsg", code)
	}
	return int(n), nil
}

// datagram is the i-th of the last receive; one cut short is empty.
func (r *receiver) datagram(i int) []byte {
	if r.slots[i].hdr.Flags&unix.MSG_TRUNC != 0 {
		return nil
	}
	at := i * eventSize
	return r.buf[at : at+int(r.slots[i].len)]
}

func (r *receiver) close() error { return r.nl.Close() }
