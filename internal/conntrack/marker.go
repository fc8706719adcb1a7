package conntrack

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

// markers are messages that the event socket sends to itself. The kernel queues a marker
// behind all events it has sent by then, in the socket's one queue, and refuses it while it
// drops events for want of buffer. So once a marker has been read, all earlier events have
// been read too, or the loss is known: the first read after an overrun reports it.
type markers struct {
	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan struct{}
	stopped chan struct{} // closed when the listener has ended
}

var errBehind = errors.New("conntrack events cannot be caught up with")

func newMarkers() *markers {
	return &markers{waiting: make(map[uint32]chan struct{}), stopped: make(chan struct{})}
}

func (m *markers) add() (seq uint32, reached chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	reached = make(chan struct{})
	m.waiting[m.last] = reached
	return m.last, reached
}

func (m *markers) drop(seq uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiting, seq)
}

// reach wakes the waiters for markers: all events before them have been applied.
func (m *markers) reach(seqs []uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, seq := range seqs {
		if reached, ok := m.waiting[seq]; ok {
			close(reached)
			delete(m.waiting, seq)
		}
	}
}

// catchUp returns once every event that the kernel had sent at the call has been applied to
// the index. It returns errBehind when that cannot be known.
func (l *listener) catchUp(ctx context.Context) error {
	seq, reached := l.markers.add()
	defer l.markers.drop(seq)
	if err := l.receiver.mark(seq); err != nil {
		return errors.Join(errBehind, err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.markers.stopped:
		return errBehind
	case <-reached:
		return nil
	}
}

// mark sends a marker: an empty message, unlike any event.
func (r *receiver) mark(seq uint32) error {
	b := nlmsg.End(nlmsg.Begin(nil, unix.NLMSG_NOOP, 0, seq), 0)
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: r.nl.PID()}
	var err error
	if werr := r.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, to)
		return err != unix.EINTR
	}); werr != nil {
		return werr
	}
	return os.NewSyscallError("sendto", err)
}
