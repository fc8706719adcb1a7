package radiusacct

import (
	"net/netip"
	"time"

	"layeh.com/radius"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// An incoming is a packet with what is known of it from outside its octets.
type incoming struct {
	octets     []byte
	client     *client
	duplicates *duplicates // of the client, or of its connection
	source     netip.AddrPort
	local      netip.Addr
	way        way
	arrival    time.Time
	patient    bool // wait for room in the queue: who sends on a stream does not repeat
}

// A replier takes replies that are ready to be sent. They must not change
// until they are.
type replier interface {
	add(w way, reply []byte)
}

// An intake serves packets, however they came, to the point where they are
// refused, answered or queued for the workers. Whatever the transport, this is
// the way of a packet. It belongs to one goroutine.
type intake struct {
	server     *Server
	replies    replier
	signer     *signer
	decoder    decoder
	attributes attributes
}

func newIntake(s *Server, replies replier) *intake {
	return &intake{server: s, replies: replies, signer: newSigner()}
}

// serve tells by the packet code what to do. The kind it returns is as much as
// is known of the request.
func (n *intake) serve(in *incoming) (kind string, err *fault) {
	p, err := parsePacket(in.octets)
	if err != nil {
		return TypeUnread, err
	}
	switch p.code() {
	case radius.CodeAccountingRequest:
		return n.accounting(in, p)
	case radius.CodeStatusServer:
		return TypeStatusServer, n.statusServer(in, p)
	}
	return TypeUnread, errUnknownCode
}

// accounting authenticates before it looks any further: nothing that the
// secret does not cover reaches a parser, the cache or the log in detail.
func (n *intake) accounting(in *incoming, p packet) (string, *fault) {
	secret := in.client.secret(n.signer, p)
	if secret == nil {
		return TypeUnread, errAuthenticator
	}
	a := &n.attributes
	if err := a.parse(p.attributes()); err != nil {
		return TypeUnread, err
	}
	if err := n.checkMessage(in.client, p, secret); err != nil {
		return TypeUnread, err
	}
	event, err := a.eventKind()
	kind := typeOf(event)
	if err != nil {
		if !in.client.AcknowledgeIncomplete {
			return kind, err
		}
		event = 0
	}
	return kind, n.accept(in, p, event, &request{kind: kind, secret: secret})
}

func (n *intake) checkMessage(c *client, p packet, secret []byte) *fault {
	switch value := n.attributes.messageAuth; {
	case value == nil && c.RequireMessageAuthenticator:
		return errMessageAuthMissing
	case value != nil && !messageAuthentic(p, value, secret):
		return errMessageAuth
	}
	return nil
}

// accept takes a sound request past the duplicate cache into a queue. An event
// of 0 has nothing to record.
func (n *intake) accept(in *incoming, p packet, event subscriber.EventKind, req *request) *fault {
	peer := in.client.peer
	x, seen := in.duplicates.begin(n.newExchange(in, p), in.arrival)
	switch seen {
	case answered:
		n.replies.add(in.way, x.reply)
		n.server.answered(peer, req.kind, ResultDuplicate, in.arrival)
		return nil
	case inProgress:
		return errInProgress
	case full:
		return errCacheFull
	}
	req.peer, req.duplicates, req.exchange, req.way, req.arrival = peer, in.duplicates, x, in.way, in.arrival
	if event == 0 {
		n.acknowledge(req)
		return nil
	}
	req.event, req.more = n.decoder.decode(&n.attributes, event, peer.name, in.source.Addr(), in.arrival)
	if !n.server.enqueue(req, in.patient) {
		in.duplicates.abandon(x)
		return errQueueFull
	}
	return nil
}

func (n *intake) newExchange(in *incoming, p packet) *exchange {
	x := &exchange{
		key: exchangeKey{
			source:     in.source,
			local:      in.local,
			socket:     uint16(in.way.socket),
			identifier: p.identifier(),
		},
		authenticator: p.authenticator(),
	}
	room := x.short[:0]
	if size := n.attributes.proxyStates; size > 0 {
		room = make([]byte, 0, headerLength+size)
	}
	x.reply = appendReply(room, p, n.attributes.proxyStates)
	return x
}

// acknowledge answers a request that leaves no record.
func (n *intake) acknowledge(req *request) {
	n.signer.sign(req.exchange.reply, req.exchange.authenticator, req.secret)
	if req.duplicates.complete(req.exchange, req.arrival) {
		n.replies.add(req.way, req.exchange.reply)
		n.server.answered(req.peer, req.kind, ResultNoRecord, req.arrival)
	}
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
