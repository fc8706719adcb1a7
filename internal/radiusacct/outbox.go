package radiusacct

import "github.com/sessiond/sessiond/internal/udpbatch"

// An outbox collects replies that leave through one socket. It belongs to one
// goroutine.
type outbox struct {
	writer *udpbatch.Writer
	failed func(error) bool
}

func newOutbox(s *Server, conn *udpbatch.Conn, size int) *outbox {
	return &outbox{writer: conn.NewWriter(size), failed: func(err error) bool {
		// A reply that cannot be sent is given up: its retransmission finds it in
		// the cache.
		s.replyFailed(err)
		return false
	}}
}

// add queues a reply; it must not change before flush.
func (o *outbox) add(w *way, reply []byte) {
	if o.writer.Full() {
		o.flush()
	}
	o.writer.Add(udpbatch.Datagram{Octets: reply, Peer: w.to, Control: w.oob})
}

// flush sends what is queued.
func (o *outbox) flush() { o.writer.Flush(o.failed) }

// A mailer sends replies whichever way they go. It belongs to one goroutine.
type mailer struct{ outboxes []*outbox } // by socket

func newMailer(s *Server) mailer {
	var m mailer
	for _, sock := range s.sockets {
		m.outboxes = append(m.outboxes, newOutbox(s, sock.batches, s.options.BatchSize))
	}
	return m
}

// add queues a reply for its socket, or gives it to its stream.
func (m mailer) add(w *way, reply []byte) {
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
