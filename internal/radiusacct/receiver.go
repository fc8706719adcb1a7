package radiusacct

import (
	"fmt"
	"net"
	"time"

	"layeh.com/radius"

	"github.com/sessiond/sessiond/internal/udpbatch"
)

const (
	// receiveBatch is the number of datagrams read in one system call.
	receiveBatch = 64
	// datagramLength exceeds the longest packet. So a packet whose Length exceeds its
	// datagram differs from a datagram that was truncated here.
	datagramLength = radius.MaxPacketLength + 64
)

// A receiver reads the datagrams of one UDP socket.
type receiver struct {
	*handler
	socket       *socket
	reader       *udpbatch.Reader
	outgoing     *replyBatch
	destinations destinations
	coalescer    coalescer
	incoming     incoming // the datagram being handled
}

func newReceiver(s *Server, sock *socket) *receiver {
	outgoing := newReplyBatch(s, sock.batches, receiveBatch)
	return &receiver{
		handler:      newHandler(s, outgoing),
		socket:       sock,
		reader:       sock.batches.NewReader(receiveBatch, datagramLength, controlLength),
		outgoing:     outgoing,
		destinations: destinations{ipv6: sock.LocalAddr().(*net.UDPAddr).IP.To4() == nil},
	}
}

// run reads until the socket fails, which interrupt causes by a deadline in the past.
func (r *receiver) run() error {
	for {
		datagrams, err := r.reader.Read()
		if err != nil {
			return fmt.Errorf("receive on %s: %w", r.socket.LocalAddr(), err)
		}
		now := r.server.now()
		for i := range datagrams {
			r.receive(&datagrams[i], now)
		}
		r.handler.flush()
		r.outgoing.flush()
		r.handler.forget()
		time.Sleep(r.coalescer.pause(len(datagrams), now))
	}
}

// receive handles one datagram until it is refused, answered or queued.
func (r *receiver) receive(d *udpbatch.Datagram, now time.Time) {
	source := d.Peer.AddrPort()
	c := r.server.clients.Load().lookup(source.Addr())
	if c == nil {
		r.coalescer.note(nil, false, now)
		r.server.unknownClient(source, now)
		return
	}
	if r.server.overLimit(c, d.Octets) {
		return
	}
	local := r.destinations.of(d.Control)
	in := &r.incoming
	*in = incoming{
		octets:     d.Octets,
		client:     c,
		duplicates: c.peer.duplicates,
		source:     source,
		local:      local.addr,
		way:        replyPath{socket: r.socket.index, to: d.Peer, oob: local.oob},
		arrival:    now,
	}
	kind, err := r.serve(in)
	r.coalescer.note(c.peer, err == nil, now)
	if err != nil {
		r.server.refused(in, kind, err)
	}
}
