package radiusacct

import (
	"context"
	"errors"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// errUnanswered stands for the errors that a Recorder forgot to return.
var errUnanswered = errors.New("the recorder did not say what became of the event")

// A worker records what waits in its queue, and answers what was recorded.
type worker struct {
	server   *Server
	queue    *queue
	batch    []*request
	events   []subscriber.Event
	signer   *signer
	outboxes []*outbox // by socket
}

func newWorker(s *Server, q *queue) *worker {
	w := &worker{
		server: s,
		queue:  q,
		batch:  make([]*request, 0, s.options.BatchSize),
		events: make([]subscriber.Event, 0, s.options.BatchSize),
		signer: newSigner(),
	}
	for _, sock := range s.sockets {
		w.outboxes = append(w.outboxes, newOutbox(sock, s.options.BatchSize, s.replyFailed))
	}
	return w
}

// run works until the queue is closed and empty.
func (w *worker) run(ctx context.Context) {
	for {
		batch := w.queue.take(w.batch)
		if len(batch) == 0 {
			return
		}
		w.serve(ctx, batch)
		clear(batch)
	}
}

func (w *worker) serve(ctx context.Context, batch []*request) {
	events := w.events
	for _, r := range batch {
		events = append(events, r.event)
	}
	errs := w.server.options.Recorder.Record(ctx, events)
	for i, r := range batch {
		if i >= len(errs) {
			w.release(r, errUnanswered)
		} else if errs[i] != nil {
			w.release(r, errs[i])
		} else {
			w.answer(r)
		}
	}
	for _, o := range w.outboxes {
		o.flush()
	}
	clear(events)
}

// answer signs and sends the reply to a recorded request, unless its sender
// already put another request in its place.
func (w *worker) answer(r *request) {
	x := r.exchange
	w.signer.sign(x.reply, x.authenticator, r.secret)
	if !r.peer.duplicates.complete(x, w.server.now()) {
		w.server.options.Observer.Request(r.peer.name, r.kind, ResultDropped, 0)
		return
	}
	w.outboxes[r.way.socket].add(r.way, x.reply)
	w.server.answered(r.peer, r.kind, ResultOK, r.arrival)
}

// release leaves a request unanswered and its retransmission welcome.
func (w *worker) release(r *request, err error) {
	r.peer.duplicates.abandon(r.exchange)
	w.server.notRecorded(r, err)
}
