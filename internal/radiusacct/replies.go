package radiusacct

import "github.com/sessiond/sessiond/internal/udpbatch"

// A replyBatch collects replies that leave through one socket. It belongs to one
// goroutine.
type replyBatch struct {
	writer *udpbatch.Writer
	failed func(error) bool
}

func newOutbox(s *Server, conn *udpbatch.Conn, size int) *replyBatch {
	return &replyBatch{writer: conn.NewWriter(size), failed: func(err error) bool {
		// A reply that cannot be sent is given up: its retransmission finds it in
		// the cache.
		s.replyFailed(err)
		return false
	}}
}

// add queues a reply; it must not change before flush.
func (o *replyBatch) add(w *replyPath, reply []byte) {
	if o.writer.Full() {
		o.flush()
	}
	o.writer.Add(udpbatch.Datagram{Octets: reply, Peer: w.to, Control: w.oob})
}

// flush sends what is queued.
func (o *replyBatch) flush() { o.writer.Flush(o.failed) }

// A replySender sends replies whichever way they go. It belongs to one goroutine.
type replySender struct{ outboxes []*replyBatch } // by socket

func newMailer(s *Server) replySender {
	var m replySender
	for _, sock := range s.sockets {
		m.outboxes = append(m.outboxes, newOutbox(s, sock.batches, s.options.BatchSize))
	}
	return m
}

// add queues a reply for its socket, or gives it to its stream.
func (m replySender) add(w *replyPath, reply []byte) {
	if w.stream != nil {
		w.stream.Send(reply)
		return
	}
	m.outboxes[w.socket].add(w, reply)
}

func (m replySender) flush() {
	for _, o := range m.outboxes {
		o.flush()
	}
}
