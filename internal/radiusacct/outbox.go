package radiusacct

import (
	"golang.org/x/net/ipv4"
)

// An outbox collects replies that leave through one socket. It belongs to one
// goroutine.
type outbox struct {
	conn     batchConn
	messages []ipv4.Message
	pending  int
	failed   func(error)
}

func newOutbox(conn batchConn, size int, failed func(error)) *outbox {
	return &outbox{conn: conn, messages: newMessages(size, 0, 0), failed: failed}
}

// add queues a reply; it must not change before flush.
func (o *outbox) add(w way, reply []byte) {
	if o.pending == len(o.messages) {
		o.flush()
	}
	m := &o.messages[o.pending]
	m.Buffers[0], m.OOB, m.Addr = reply, w.oob, w.to
	o.pending++
}

// flush sends what is queued. A reply that cannot be sent is given up: its
// retransmission finds it in the cache.
func (o *outbox) flush() {
	queued := o.messages[:o.pending]
	for len(queued) > 0 {
		n, err := o.conn.WriteBatch(queued, 0)
		if err != nil {
			o.failed(err)
			n = 1
		}
		queued = queued[n:]
	}
	for i := range o.messages[:o.pending] {
		m := &o.messages[i]
		m.Buffers[0], m.OOB, m.Addr = nil, nil, nil
	}
	o.pending = 0
}

// A mailer sends replies whichever way they go. It belongs to one goroutine.
type mailer struct{ outboxes []*outbox } // by socket

func newMailer(s *Server) mailer {
	var m mailer
	for _, sock := range s.sockets {
		m.outboxes = append(m.outboxes, newOutbox(sock, s.options.BatchSize, s.replyFailed))
	}
	return m
}

// add queues a reply for its socket, or gives it to its stream.
func (m mailer) add(w way, reply []byte) {
	if w.stream != nil {
		w.stream.add(w, reply)
		return
	}
	m.outboxes[w.socket].add(w, reply)
}

func (m mailer) flush() {
	for _, o := range m.outboxes {
		o.flush()
	}
}
