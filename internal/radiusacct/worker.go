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
	server *Server
	queue  *queue
	batch  []*request
	events []subscriber.Event
	signer *signer
	mailer mailer
}

func newWorker(s *Server, q *queue) *worker {
	return &worker{
		server: s,
		queue:  q,
		batch:  make([]*request, 0, s.options.BatchSize),
		events: make([]subscriber.Event, 0, s.options.BatchSize),
		signer: newSigner(),
		mailer: newMailer(s),
	}
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
	events := w.events[:0]
	for _, r := range batch {
		events = append(append(events, r.event), r.more...)
	}
	w.events = events
	errs := w.server.options.Recorder.Record(ctx, events)
	for _, r := range batch {
		n := min(1+len(r.more), len(errs))
		if err := outcome(r, errs[:n]); err != nil {
			w.release(r, err)
		} else {
			w.answer(r)
		}
		errs = errs[n:]
	}
	w.mailer.flush()
	clear(events)
}

// outcome is nil if every event of the request was taken.
func outcome(r *request, errs []error) error {
	if len(errs) <= len(r.more) {
		return errUnanswered
	}
	return errors.Join(errs...)
}

// answer signs and sends the reply to a recorded request, unless its sender
// already put another request in its place.
func (w *worker) answer(r *request) {
	x := r.exchange
	w.signer.sign(x.reply, x.authenticator, r.secret)
	if !r.duplicates.complete(x, w.server.now()) {
		w.server.options.Observer.Request(r.peer.name, r.kind, ResultDropped, 0)
		return
	}
	w.mailer.add(r.way, x.reply)
	w.server.answered(r.peer, r.kind, ResultOK, r.arrival)
}

// release leaves a request unanswered and its retransmission welcome.
func (w *worker) release(r *request, err error) {
	r.duplicates.abandon(r.exchange)
	w.server.notRecorded(r, err)
}
