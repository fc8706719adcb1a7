package conntrack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// listener feeds the index with events.
type listener struct {
	receiver *receiver
	index    *index
	stale    chan struct{} // holds a token when the index must be rebuilt
	markers  *markers
	passed   []uint32 // markers in the batch being read

	events   atomic.Uint64 // entries begun and ended
	overruns atomic.Uint64 // times the kernel dropped events
}

// event is one parsed notification.
type event struct {
	flow  flow
	ended bool
}

// listen runs until ctx is done. After lost events it first empties the socket: until then
// the kernel drops new events without another error, and a rebuild would miss them.
func (l *listener) listen(ctx context.Context) error {
	stop := l.receiver.cancelWith(ctx)
	defer stop()
	defer close(l.markers.stopped)
	defer l.index.lost()
	batch := make([]event, 0, eventsPerRead)
	lost := false
	for {
		n, err := l.receiver.receive(!lost)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			l.index.lost()
			l.overruns.Add(1)
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("receive conntrack events: %w", err)
		}
		batch = batch[:0]
		for i := range n {
			batch = l.parse(batch, l.receiver.datagrams.At(i))
		}
		l.apply(batch)
		l.markers.reach(l.passed)
		l.passed = l.passed[:0]
		if lost && n < eventsPerRead {
			lost = false
			l.askRebuild()
		}
	}
}

// garbled records a message that could not be parsed: it may have been an event.
func (l *listener) garbled() {
	l.index.lost()
	l.askRebuild()
}

func (l *listener) askRebuild() {
	select {
	case l.stale <- struct{}{}:
	default:
	}
}

// parse appends the events in a datagram, which is nil if it was cut short. A message that
// cannot be parsed counts as a lost event.
func (l *listener) parse(to []event, b []byte) []event {
	if b == nil {
		l.garbled()
	}
	for len(b) > 0 {
		m, rest, ok := nlmsg.Next(b)
		if !ok {
			l.garbled()
			break
		}
		b = rest
		switch m.Type {
		case unix.NLMSG_NOOP:
			l.passed = append(l.passed, m.Seq)
		case typeNew, typeDelete:
			to = append(to, event{ended: m.Type == typeDelete})
			ok, err := to[len(to)-1].flow.parse(m.Payload)
			if err != nil {
				l.garbled()
			}
			if !ok {
				to = to[:len(to)-1]
			}
		}
	}
	return to
}

func (l *listener) apply(batch []event) {
	if len(batch) == 0 {
		return
	}
	l.events.Add(uint64(len(batch)))
	l.index.mu.Lock()
	defer l.index.mu.Unlock()
	for i := range batch {
		if batch[i].ended {
			l.index.destroyedLocked(&batch[i].flow)
		} else {
			l.index.createdLocked(&batch[i].flow)
		}
	}
}

// The socket.

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

// Markers.

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
	m, reached := l.markers, make(chan struct{})
	m.mu.Lock()
	m.last++
	seq := m.last
	m.waiting[seq] = reached
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, seq)
	}()
	if err := l.receiver.mark(seq); err != nil {
		return errors.Join(errBehind, err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.stopped:
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
