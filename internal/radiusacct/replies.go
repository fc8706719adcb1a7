package radiusacct

import "github.com/sessiond/sessiond/internal/udpbatch"

// A replyBatch collects replies that leave through one socket. It is used by one goroutine.
type replyBatch struct {
	writer *udpbatch.Writer
	failed func(error) bool
}

func newReplyBatch(s *Server, conn *udpbatch.Conn, size int) *replyBatch {
	return &replyBatch{writer: conn.NewWriter(size), failed: func(err error) bool {
		// A failed reply is not sent again: a retransmission finds it in the cache.
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

// flush sends the queued replies.
func (o *replyBatch) flush() { o.writer.Flush(o.failed) }

// A replySender sends replies to sockets and streams. It is used by one goroutine.
type replySender struct{ batches []*replyBatch } // by socket

func newReplySender(s *Server) replySender {
	var m replySender
	for _, sock := range s.sockets {
		m.batches = append(m.batches, newReplyBatch(s, sock.batches, s.options.BatchSize))
	}
	return m
}

// add queues a reply for its socket, or passes it to its stream.
func (m replySender) add(w *replyPath, reply []byte) {
	if w.stream != nil {
		w.stream.Send(reply)
		return
	}
	m.batches[w.socket].add(w, reply)
}

func (m replySender) flush() {
	for _, o := range m.batches {
		o.flush()
	}
}
