package radiusacct

import (
	"net"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// A request waits for the Recorder, or is with it.
type request struct {
	event      subscriber.Event
	more       []subscriber.Event // of the session's further addresses
	peer       *peer
	secret     []byte // the one that authenticated it
	duplicates *duplicates
	exchange   *exchange
	way        way
	kind       string // one of the Type constants
	arrival    time.Time
}

// A way leads back to where a request came from: a stream, or a socket.
type way struct {
	stream *stream // nil for datagrams
	socket int     // index among the server's sockets
	to     net.Addr
	oob    []byte // control message that selects the source address
}

// A lane is what waits of one client for one worker.
type lane struct{ waiting fifo[*request] }

// A queue is what waits for one worker. Clients take turns, request by request,
// so that the storm of one costs another no more than the batch under way; the
// requests of one client keep their order.
type queue struct {
	laneLimit int

	mu      sync.Mutex
	some    sync.Cond   // something waits, or nothing will
	room    sync.Cond   // a lane is no longer full, or patience ended
	turns   fifo[*lane] // lanes where something waits
	hurried bool
	closed  bool
}

func newQueue(laneLimit int) *queue {
	q := &queue{laneLimit: laneLimit}
	q.some.L, q.room.L = &q.mu, &q.mu
	return q
}

// put appends a request to a lane of this queue, or reports that it is full.
// The patient wait until it is not, or until hurry.
func (q *queue) put(l *lane, r *request, patient bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for l.waiting.count >= q.laneLimit {
		if !patient || q.hurried {
			return false
		}
		q.room.Wait()
	}
	l.waiting.push(r)
	if l.waiting.count == 1 {
		q.turns.push(l)
		q.some.Signal()
	}
	return true
}

// take waits until there are requests and appends them to batch, up to its
// capacity. Without any the queue is closed and empty.
func (q *queue) take(batch []*request) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.turns.count == 0 && !q.closed {
		q.some.Wait()
	}
	for q.turns.count > 0 && len(batch) < cap(batch) {
		l := q.turns.pop()
		if l.waiting.count == q.laneLimit {
			q.room.Broadcast()
		}
		batch = append(batch, l.waiting.pop())
		if l.waiting.count > 0 {
			q.turns.push(l)
		}
	}
	return batch
}

// hurry ends the patience of put.
func (q *queue) hurry() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hurried = true
	q.room.Broadcast()
}

// close lets take return without requests once all are taken.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}
