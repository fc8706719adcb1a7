package radiusacct

import (
	"context"
	"errors"
	"slices"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/udpbatch"
)

// errUnanswered replaces the errors that a Recorder failed to return.
var errUnanswered = errors.New("the recorder did not say what became of the event")

// A worker records the requests of its queue and answers the recorded ones.
type worker struct {
	server  *Server
	queue   *queue
	batch   batch
	done    []*request // of the batch: recorded
	events  []subscriber.Event
	signer  *wire.Signer
	replies []*udpbatch.Writer // by socket
}

func newWorker(s *Server, q *queue) *worker {
	w := &worker{
		server: s,
		queue:  q,
		batch:  batch{requests: make([]*request, 0, s.options.BatchSize)},
		done:   make([]*request, 0, s.options.BatchSize),
		events: make([]subscriber.Event, 0, s.options.BatchSize),
		signer: wire.NewSigner(),
	}
	for _, sock := range s.sockets {
		w.replies = append(w.replies, sock.batches.NewWriter(s.options.BatchSize, s.replyFailed))
	}
	return w
}

// runCalm serves calm clients until the queue is closed and empty.
func (w *worker) runCalm(ctx context.Context) {
	for w.queue.dequeueCalm(&w.batch) {
		now := w.server.now()
		for _, l := range w.batch.queues {
			w.server.fairness.note(l.realm, now)
		}
		w.serve(ctx, w.batch.requests)
		w.queue.done(&w.batch)
	}
}

// runStorms serves storms until the queue is closed and empty.
func (w *worker) runStorms(ctx context.Context) {
	for w.queue.dequeueStorms(&w.batch) {
		now := w.server.now()
		for _, l := range w.batch.queues {
			l.realm.storm(now)
		}
		for rest := w.batch.requests; len(rest) > 0; {
			n := len(rest)
			if w.server.fairness.hasOther(rest[0].realm, w.server.now()) {
				n = min(n, narrowBatch)
				w.server.fairness.yieldToQuiet(ctx, func() { w.serve(ctx, rest[:n]) })
			} else {
				w.serve(ctx, rest)
			}
			rest = rest[n:]
		}
		w.queue.done(&w.batch)
	}
}

func (w *worker) serve(ctx context.Context, batch []*request) {
	events := w.events[:0]
	for _, r := range batch {
		events = append(append(events, r.event), r.more...)
	}
	w.events = events
	errs := w.server.options.Recorder.Record(ctx, events)
	done := w.done[:0]
	for _, r := range batch {
		n := min(1+len(r.more), len(errs))
		if err := outcome(r, errs[:n]); err != nil {
			w.release(r, err)
		} else {
			r.noRecord = !slices.Contains(errs[:n], nil)
			done = append(done, r)
		}
		errs = errs[n:]
	}
	w.answer(done)
	clear(events)
	for _, r := range batch {
		r.recycle()
	}
}

// outcome returns nil if every event of the request was recorded or needed no record.
func outcome(r *request, errs []error) error {
	if len(errs) <= len(r.more) {
		return errUnanswered
	}
	var failed error
	for _, err := range errs {
		if err != nil && !errors.Is(err, subscriber.ErrNoRecord) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// answer signs and sends the replies to recorded requests.
func (w *worker) answer(done []*request) {
	for _, r := range done {
		w.signer.Sign(r.reply, r.authenticator, r.secret)
	}
	now := w.server.now()
	for len(done) > 0 {
		n := 1 // requests of one duplicate cache, whose lock is taken once
		for n < len(done) && done[n].duplicates == done[0].duplicates {
			n++
		}
		done[0].duplicates.completeAll(done[:n], now)
		for _, r := range done[:n] {
			if !r.wanted { // its sender has replaced it by another one
				w.server.options.Observer.Request(r.peer.name, r.kind, ResultDropped, 0)
				continue
			}
			if r.way.stream != nil {
				r.way.stream.Send(r.reply)
			} else {
				w.replies[r.way.socket].Add(udpbatch.Datagram{Octets: r.reply, Peer: r.way.to, Control: r.way.oob})
			}
			result := ResultOK
			if r.noRecord {
				result = ResultNoRecord
			}
			w.server.options.Observer.Request(r.peer.name, r.kind, result, now.Sub(r.arrival))
		}
		done = done[n:]
	}
	for _, socket := range w.replies {
		socket.Flush()
	}
}

// release leaves a request unanswered, so that its retransmission is recorded again.
func (w *worker) release(r *request, err error) {
	r.duplicates.abandon(r.exchange)
	w.server.notRecorded(r, err)
}
