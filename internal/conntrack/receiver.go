package conntrack

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nlmsg"
)

const (
	// eventBuffer is the requested receive buffer: about a second of 100,000 new
	// sessions/s. It is a bound; memory is used only by waiting events.
	eventBuffer = 128 << 20
	// eventsPerRead is the number of events in one system call, applied under one hold of
	// the index's lock.
	eventsPerRead = 128
	// eventSize is more than any event of an IPv4 entry takes (about 300 octets).
	eventSize = 2048
)

// receiver reads many events with one system call.
type receiver struct {
	nl        *netlink.Conn
	raw       syscall.RawConn
	datagrams *nlmsg.Datagrams
}

func newReceiver(space netns.Namespace, buffer int) (*receiver, error) {
	c, err := dial(space, buffer)
	if err != nil {
		return nil, err
	}
	return &receiver{nl: c.nl, raw: c.raw, datagrams: nlmsg.NewDatagrams(eventsPerRead, eventSize)}, nil
}

// join subscribes to the events of new and ended entries.
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

// receive reads up to eventsPerRead datagrams. With wait it waits for the first one,
// without it returns 0 when there is none. ENOBUFS means that the kernel dropped events,
// and drops more until the queue is empty.
func (r *receiver) receive(wait bool) (int, error) {
	var n int
	var code unix.Errno
	err := r.raw.Read(func(fd uintptr) bool {
		n, code = r.datagrams.Receive(fd)
		return code != unix.EAGAIN || !wait
	})
	switch {
	case err != nil:
		return 0, err
	case code == unix.EAGAIN:
		return 0, nil
	case code != 0:
		return 0, os.NewSyscallError("recvmmsg", code)
	}
	return n, nil
}

func (r *receiver) close() error { return r.nl.Close() }
