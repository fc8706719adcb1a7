package radiusacct

import (
	"context"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/fifo"
)

// stormLength is the number of waiting requests of one client in one queue above which they
// are a storm.
const stormLength = 32

// A clientQueue holds the waiting requests of one client, or of a realm of them, in one
// queue.
type clientQueue struct {
	realm   *realm
	waiting fifo.Queue[*request]
	taken   bool // a batch has some of its requests: the others wait, to keep the order
}

// A queue holds the requests that wait for two workers. One worker takes the few requests
// of calm clients at once; the other takes storms, in large batches. So a storm delays only
// its own client. Storms take turns, request by request. The requests of one client, or of
// one realm of clients, keep their order.
type queue struct {
	perClient int

	mu        sync.Mutex
	news      sync.Cond // for workers
	room      sync.Cond // a clientQueue is no longer full, or unblockPutters was called
	calm      fifo.Queue[*clientQueue]
	storms    fifo.Queue[*clientQueue]
	out       int // client queues that are taken
	unblocked bool
	closed    bool
}

func newQueue(perClient int) *queue {
	q := &queue{perClient: perClient}
	q.news.L, q.room.L = &q.mu, &q.mu
	return q
}

// put appends a request to a clientQueue of this queue. It waits until the clientQueue has room,
// and reports that it has none after unblockPutters.
func (q *queue) put(l *clientQueue, r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for l.waiting.Len() >= q.perClient {
		if q.unblocked {
			return false
		}
		q.room.Wait()
	}
	q.appendLocked(l, r)
	return true
}

// putAll appends requests to their client queues, and returns those without
// room. It does not wait.
func (q *queue) putAll(requests []*request, number int) (refused []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range requests {
		if l := &r.realm.queues[number]; l.waiting.Len() < q.perClient {
			q.appendLocked(l, r)
		} else {
			refused = append(refused, r)
		}
	}
	return refused
}

func (q *queue) appendLocked(l *clientQueue, r *request) {
	l.waiting.Push(r)
	l.realm.waiting.Add(1)
	if l.waiting.Len() == 1 && !l.taken {
		q.lineUpLocked(l)
	}
}

// lineUpLocked appends a clientQueue that has requests to the calm ones or to the storms.
func (q *queue) lineUpLocked(l *clientQueue) {
	if l.waiting.Len() > stormLength {
		q.storms.Push(l)
	} else {
		q.calm.Push(l)
	}
	q.news.Broadcast()
}

// A batch is the requests that a worker has taken from its queue.
type batch struct {
	requests []*request
	queues   []*clientQueue
}

// dequeueCalm waits until calm clients have requests and moves them into an empty batch, up to
// its capacity. It returns false when the queue is closed and empty.
func (q *queue) dequeueCalm(b *batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.awaitLocked(&q.calm) {
		for q.calm.Len() > 0 && len(b.requests) < cap(b.requests) {
			l := q.calm.Pop()
			if l.waiting.Len() > stormLength { // it grew meanwhile
				q.lineUpLocked(l)
				continue
			}
			for l.waiting.Len() > 0 && len(b.requests) < cap(b.requests) {
				q.moveLocked(b, l)
			}
		}
		if len(b.requests) > 0 {
			return true
		}
	}
	return false
}

// dequeueStorms waits until there are storms and moves requests of each in turn into an empty
// batch, up to its capacity. It returns false when the queue is closed and empty.
func (q *queue) dequeueStorms(b *batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.awaitLocked(&q.storms) {
		return false
	}
	for q.storms.Len() > 0 && len(b.requests) < cap(b.requests) {
		l := q.storms.Pop()
		if q.moveLocked(b, l); l.waiting.Len() > 0 {
			q.storms.Push(l)
		}
	}
	for n := q.storms.Len(); n > 0; n-- { // done lines up again those of the batch
		if l := q.storms.Pop(); !l.taken {
			q.storms.Push(l)
		}
	}
	return true
}

// awaitLocked waits until line has an element. It returns false when it never will.
func (q *queue) awaitLocked(line *fifo.Queue[*clientQueue]) bool {
	for line.Len() == 0 {
		if q.closed && q.calm.Len() == 0 && q.storms.Len() == 0 && q.out == 0 {
			return false
		}
		q.news.Wait()
	}
	return true
}

// moveLocked moves the first request of a clientQueue into the batch.
func (q *queue) moveLocked(b *batch, l *clientQueue) {
	if !l.taken {
		l.taken = true
		q.out++
		b.queues = append(b.queues, l)
	}
	if l.waiting.Len() == q.perClient {
		q.room.Broadcast()
	}
	b.requests = append(b.requests, l.waiting.Pop())
	l.realm.waiting.Add(-1)
}

// done ends a batch and empties it. It lines up those of its client queues
// again that have more requests.
func (q *queue) done(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range b.queues {
		l.taken = false
		if l.waiting.Len() > 0 {
			q.lineUpLocked(l)
		}
	}
	if q.out -= len(b.queues); q.closed {
		q.news.Broadcast()
	}
	clear(b.requests)
	b.requests, b.queues = b.requests[:0], b.queues[:0]
}

// unblockPutters ends the waiting of put.
func (q *queue) unblockPutters() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unblocked = true
	q.room.Broadcast()
}

// close lets the workers end once the queue is empty.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.news.Broadcast()
}

// Fairness between the two workers of a queue.

const (
	// quietTime is how long a calm client is remembered, and how long a client
	// must have been without a storm to be calm again.
	quietTime = time.Second
	// narrowBatch is the number of a storm's requests that are recorded at once while there
	// are calm clients, which may have to wait for them.
	narrowBatch = 2
	// longestPause bounds each pause of a storm for calm clients.
	longestPause = 10 * time.Millisecond
)

// A fairness remembers which clients were calm during the last second, so that storms are
// slowed only while somebody would wait for them. The zero value is ready.
type fairness struct {
	narrow sync.Mutex // held during a storm's turn beside calm clients

	mu            sync.Mutex
	latest, other quietClient // of different realms
}

type quietClient struct {
	realm *realm
	at    time.Time
}

// yieldToQuiet serves part of a storm while there are calm clients. It serves one storm at
// a time and then pauses for as long as that took, so that neither the Recorder nor the
// processors are ever busy with storms alone.
func (c *fairness) yieldToQuiet(ctx context.Context, serve func()) {
	c.narrow.Lock()
	defer c.narrow.Unlock()
	began := time.Now()
	serve()
	_ = clock.Sleep(ctx, min(time.Since(began), longestPause)) // ends early with ctx
}

// storm tells that a client has a storm. It is not calm for a second after its queue
// drained, or two large clients would keep slowing each other.
func (r *realm) storm(now time.Time) { r.stormed.Store(now.UnixNano()) }

// note records a client with few requests, if it is calm.
func (c *fairness) note(r *realm, now time.Time) {
	if now.UnixNano()-r.stormed.Load() < int64(quietTime) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest.realm != r {
		c.other = c.latest
	}
	c.latest = quietClient{r, now}
}

// hasOther reports whether another client has been calm within quietTime.
func (c *fairness) hasOther(r *realm, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range [...]quietClient{c.latest, c.other} {
		if known.realm != nil && known.realm != r && now.Sub(known.at) < quietTime {
			return true
		}
	}
	return false
}
