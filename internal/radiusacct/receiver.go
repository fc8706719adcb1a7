package radiusacct

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"layeh.com/radius"

	"github.com/sessiond/sessiond/internal/subscriber"
)

const (
	// receiveBatch is the number of datagrams read in one system call.
	receiveBatch = 64
	// datagramLength exceeds the longest packet, so that a Length beyond the
	// datagram is told from one that was cut off here.
	datagramLength = radius.MaxPacketLength + 64
)

// A receiver reads one socket: it answers what it can by itself and queues the
// rest for the workers.
type receiver struct {
	server       *Server
	socket       *socket
	messages     []ipv4.Message
	outbox       *outbox
	destinations destinations
	signer       *signer
	decoder      decoder
	attributes   attributes
}

// A datagram is what a receiver knows of a request from outside its octets.
type datagram struct {
	octets  []byte
	client  *client
	source  netip.AddrPort
	local   netip.Addr
	way     way
	arrival time.Time
}

func newReceiver(s *Server, sock *socket) *receiver {
	return &receiver{
		server:       s,
		socket:       sock,
		messages:     newMessages(receiveBatch, datagramLength, controlLength),
		outbox:       newOutbox(sock, receiveBatch, s.replyFailed),
		destinations: destinations{ipv6: sock.LocalAddr().(*net.UDPAddr).IP.To4() == nil},
		signer:       newSigner(),
	}
}

// run reads until the socket fails, which a deadline in the past brings about.
func (r *receiver) run() error {
	for {
		n, err := r.socket.ReadBatch(r.messages, 0)
		if err != nil {
			return fmt.Errorf("receive on %s: %w", r.socket.LocalAddr(), err)
		}
		now := r.server.now()
		for i := range r.messages[:n] {
			r.receive(&r.messages[i], now)
		}
		r.outbox.flush()
	}
}

// receive handles one datagram to the point where it is refused, answered or queued.
func (r *receiver) receive(m *ipv4.Message, now time.Time) {
	from := m.Addr.(*net.UDPAddr).AddrPort()
	source := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	c := r.server.clients.Load().lookup(source.Addr())
	if c == nil {
		r.server.unknownClient(source, now)
		return
	}
	local := r.destinations.of(m.OOB[:m.NN])
	d := datagram{
		octets:  m.Buffers[0][:m.N],
		client:  c,
		source:  source,
		local:   local.addr,
		way:     way{socket: r.socket.index, to: m.Addr, oob: local.oob},
		arrival: now,
	}
	if kind, err := r.serve(&d); err != nil {
		r.server.refused(&d, kind, err)
	}
}

// serve tells by the packet code what to do. The kind it returns is as much as
// is known of the request.
func (r *receiver) serve(d *datagram) (kind string, err *fault) {
	p, err := parsePacket(d.octets)
	if err != nil {
		return TypeUnread, err
	}
	switch p.code() {
	case radius.CodeAccountingRequest:
		return r.accounting(d, p)
	case radius.CodeStatusServer:
		return TypeStatusServer, r.statusServer(d, p)
	}
	return TypeUnread, errUnknownCode
}

// accounting authenticates before it looks any further: nothing that the
// secret does not cover reaches a parser, the cache or the log in detail.
func (r *receiver) accounting(d *datagram, p packet) (string, *fault) {
	secret := d.client.secret(r.signer, p)
	if secret == nil {
		return TypeUnread, errAuthenticator
	}
	a := &r.attributes
	if err := a.parse(p.attributes()); err != nil {
		return TypeUnread, err
	}
	if err := r.checkMessage(d.client, p, secret); err != nil {
		return TypeUnread, err
	}
	event, err := a.eventKind()
	kind := typeOf(event)
	if err != nil {
		if !d.client.AcknowledgeIncomplete {
			return kind, err
		}
		event = 0
	}
	return kind, r.accept(d, p, event, &request{kind: kind, secret: secret})
}

func (r *receiver) checkMessage(c *client, p packet, secret []byte) *fault {
	switch value := r.attributes.messageAuth; {
	case value == nil && c.RequireMessageAuthenticator:
		return errMessageAuthMissing
	case value != nil && !messageAuthentic(p, value, secret):
		return errMessageAuth
	}
	return nil
}

// accept takes a sound request past the duplicate cache into a queue. An event
// of 0 has nothing to record.
func (r *receiver) accept(d *datagram, p packet, event subscriber.EventKind, req *request) *fault {
	peer := d.client.peer
	x, seen := peer.duplicates.begin(r.newExchange(d, p), d.arrival)
	switch seen {
	case answered:
		r.outbox.add(d.way, x.reply)
		r.server.answered(peer, req.kind, ResultDuplicate, d.arrival)
		return nil
	case inProgress:
		return errInProgress
	case full:
		return errCacheFull
	}
	req.peer, req.exchange, req.way, req.arrival = peer, x, d.way, d.arrival
	if event == 0 {
		r.acknowledge(req)
		return nil
	}
	req.event = r.decoder.decode(&r.attributes, event, peer.name, d.source.Addr(), d.arrival)
	if !r.server.enqueue(req) {
		peer.duplicates.abandon(x)
		return errQueueFull
	}
	return nil
}

func (r *receiver) newExchange(d *datagram, p packet) *exchange {
	x := &exchange{
		key: exchangeKey{
			source:     d.source,
			local:      d.local,
			socket:     uint16(r.socket.index),
			identifier: p.identifier(),
		},
		authenticator: p.authenticator(),
	}
	room := x.short[:0]
	if n := r.attributes.proxyStates; n > 0 {
		room = make([]byte, 0, headerLength+n)
	}
	x.reply = appendReply(room, p, r.attributes.proxyStates)
	return x
}

// acknowledge answers a request that leaves no record.
func (r *receiver) acknowledge(req *request) {
	r.signer.sign(req.exchange.reply, req.exchange.authenticator, req.secret)
	if req.peer.duplicates.complete(req.exchange, req.arrival) {
		r.outbox.add(req.way, req.exchange.reply)
		r.server.answered(req.peer, req.kind, ResultNoRecord, req.arrival)
	}
}

// statusServer answers a Status-Server (RFC 5997 section 4.2). It has no effect
// and is never cached: asking again means a new question.
func (r *receiver) statusServer(d *datagram, p packet) *fault {
	if err := r.attributes.parse(p.attributes()); err != nil {
		return err
	}
	if r.attributes.messageAuth == nil {
		return errMessageAuthMissing
	}
	secret := d.client.messageSecret(p, &r.attributes)
	if secret == nil {
		return errMessageAuth
	}
	reply := appendReply(nil, p, 0)
	r.signer.sign(reply, p.authenticator(), secret)
	r.outbox.add(d.way, reply)
	r.server.answered(d.client.peer, TypeStatusServer, ResultOK, d.arrival)
	return nil
}

// typeOf is the label of an event kind.
func typeOf(kind subscriber.EventKind) string {
	switch kind {
	case subscriber.EventStart:
		return TypeStart
	case subscriber.EventInterim:
		return TypeInterim
	case subscriber.EventStop:
		return TypeStop
	case subscriber.EventAccountingOn:
		return TypeAccountingOn
	case subscriber.EventAccountingOff:
		return TypeAccountingOff
	}
	return TypeOther
}
