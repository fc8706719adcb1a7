package conntrack

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
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
		batch = l.parse(batch[:0], n)
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

// parse appends the events of the first n datagrams. It counts a message that cannot be
// parsed as a lost event.
func (l *listener) parse(to []event, n int) []event {
	for i := range n {
		b := l.receiver.datagrams.At(i)
		if b == nil {
			l.garbled()
		}
		for len(b) > 0 {
			m, rest, ok := nlmsg.Next(b)
			if !ok {
				l.garbled()
				break
			}
			to, b = l.event(to, m), rest
		}
	}
	return to
}

func (l *listener) event(to []event, m nlmsg.Message) []event {
	switch m.Type {
	case typeNew, typeDelete:
	case unix.NLMSG_NOOP:
		l.passed = append(l.passed, m.Seq)
		return to
	default:
		return to
	}
	to = append(to, event{ended: m.Type == typeDelete})
	ok, err := to[len(to)-1].flow.parse(m.Payload)
	if err != nil {
		l.garbled()
	}
	if !ok {
		to = to[:len(to)-1]
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
