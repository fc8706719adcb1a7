package conntrack

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

// markers are messages that the event socket sends to itself. The kernel puts a
// marker behind all events it has told by then, in the one queue of the socket,
// and refuses it while it drops events for want of room. So when a marker has
// been read, so has everything from before it, or the loss has been noticed:
// an overrun is reported at the first read after it.
type markers struct {
	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan struct{}
	stopped chan struct{} // closed when nobody reads any more
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

// reach says that all from before the markers was applied.
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

// catchUp returns when every event that the kernel had told when it was called
// has been applied to the index. It returns errBehind when that is not to be
// had.
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

// mark sends a marker: an empty message, which no event is.
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
