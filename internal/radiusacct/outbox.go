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
