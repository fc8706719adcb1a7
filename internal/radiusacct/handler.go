package radiusacct

import (
	"net/netip"
	"sync"
	"time"

	"layeh.com/radius"

	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/udpbatch"
)

// A request waits for the Recorder, or is being recorded.
type request struct {
	event      subscriber.Event
	more       []subscriber.Event // events of the session's further addresses
	peer       *clientState
	realm      *realm
	secret     []byte // the secret that authenticated it
	duplicates *replyCache
	exchange   exchange
	way        replyPath
	kind       string // one of the Type constants
	arrival    time.Time

	authenticator [16]byte
	reply         wire.Packet          // signed once the events are recorded
	short         [wire.HeaderLen]byte // buffer of a reply without attributes
	wanted        bool                 // the sender still waits for the reply
	noRecord      bool                 // nothing of its events was recorded
}

// requests pools requests, whose memory would otherwise be garbage some milliseconds later.
var requests = sync.Pool{New: func() any { return new(request) }}

// recycle returns a request to the pool; no reference to it may remain.
func (r *request) recycle() {
	*r = request{}
	requests.Put(r)
}

// A replyPath is the way of the reply: a stream, or a socket and an address.
type replyPath struct {
	stream *radsec.Stream // nil for datagrams
	socket int            // index among the server's sockets
	to     udpbatch.Address
	oob    []byte // control message that selects the source address
}

// An incoming is a packet with the data about it from outside its octets.
type incoming struct {
	octets     []byte
	client     *client
	duplicates *replyCache // of the client, or of its connection
	source     netip.AddrPort
	local      [16]byte // destination address of the datagram
	way        replyPath
	arrival    time.Time
	patient    bool // wait for room in the queue, because a sender on a stream does not repeat
}

// A replier takes replies to be sent. They must not change until they are sent.
type replier interface {
	add(w *replyPath, reply []byte)
}

// A handler processes packets of either transport until they are refused, answered or
// queued for the workers. It is used by one goroutine.
type handler struct {
	server     *Server
	replies    replier
	signer     *wire.Signer
	decoder    wire.Decoder
	attributes wire.Attributes
	pending    [][]*request // by queue, until flush
	buffer     []byte       // replies, until forget
}

func newHandler(s *Server, replies replier) *handler {
	return &handler{server: s, replies: replies, signer: wire.NewSigner(), pending: make([][]*request, len(s.queues))}
}

// flush passes the pending requests to the queues, many at once: this costs less itself,
// and gives the workers large batches, which cost less too.
func (n *handler) flush() {
	for i, requests := range n.pending {
		if len(requests) == 0 {
			continue
		}
		for _, r := range n.server.queues[i].putAll(requests, i) {
			n.server.overloaded(r)
		}
		clear(requests)
		n.pending[i] = requests[:0]
	}
}

// forget empties the buffer of replies, which have been sent.
func (n *handler) forget() { n.buffer = n.buffer[:0] }

// keep returns the reply in the buffer from an index on, which stays until forget.
func (n *handler) keep(from int) []byte { return n.buffer[from:len(n.buffer):len(n.buffer)] }

// serve processes a packet by its code. The returned kind is the most specific one known.
func (n *handler) serve(in *incoming) (kind string, err *fault) {
	p, malformed := wire.Parse(in.octets)
	if malformed != nil {
		return TypeUnread, faultOf(malformed)
	}
	switch p.Code() {
	case radius.CodeAccountingRequest:
		return n.accounting(in, p)
	case radius.CodeStatusServer:
		return TypeStatusServer, n.statusServer(in, p)
	}
	return TypeUnread, errUnknownCode
}

// accounting authenticates first: only authenticated octets reach a parser, the cache, or
// the log in detail.
func (n *handler) accounting(in *incoming, p wire.Packet) (string, *fault) {
	secret := in.client.secret(n.signer, p)
	if secret == nil {
		return TypeUnread, errAuthenticator
	}
	if malformed := n.attributes.Parse(p, in.client.ServiceMarks); malformed != nil {
		return TypeUnread, faultOf(malformed)
	}
	if err := n.checkMessage(in.client, p, secret); err != nil {
		return TypeUnread, err
	}
	event, malformed := n.attributes.Kind()
	kind := typeOf(event)
	if malformed != nil {
		if !in.client.AcknowledgeIncomplete {
			return kind, faultOf(malformed)
		}
		event = 0
	}
	return kind, n.accept(in, p, event, kind, secret)
}

func (n *handler) checkMessage(c *client, p wire.Packet, secret []byte) *fault {
	switch there := n.attributes.HasMessageAuthenticator(); {
	case !there && c.RequireMessageAuthenticator:
		return errMessageAuthMissing
	case there && !wire.MessageAuthentic(p, &n.attributes, secret):
		return errMessageAuth
	}
	return nil
}

// accept looks a sound request up in the duplicate cache and queues a new one. An event of
// 0 has nothing to record.
func (n *handler) accept(in *incoming, p wire.Packet, event subscriber.EventKind, kind string, secret []byte) *fault {
	length, from := n.attributes.ReplyLen(), len(n.buffer)
	x, seen, buffer := in.duplicates.begin(in.key(p), p.Authenticator(), length, in.arrival, n.buffer)
	n.buffer = buffer
	switch seen {
	case answered:
		n.reply(in, kind, ResultDuplicate, from)
		return nil
	case inProgress:
		return errInProgress
	case full:
		return errCacheFull
	}
	if event == 0 {
		n.acknowledge(in, p, x, kind, secret)
		return nil
	}
	req := requests.Get().(*request)
	req.kind, req.secret, req.peer, req.realm = kind, secret, in.client.peer, in.client.realm
	req.duplicates, req.exchange = in.duplicates, x
	req.way, req.arrival, req.authenticator = in.way, in.arrival, p.Authenticator()
	req.reply = wire.AppendReply(req.short[:0], p, n.attributes.ReplyLen())
	req.more = n.decoder.Decode(&req.event, &n.attributes, event, &in.client.sender, in.source.Addr(), in.arrival)
	req.event.Digest = p.Digest()
	for i := range req.more {
		req.more[i].Digest = req.event.Digest
	}
	in.client.bounds.mark(&req.event, req.more)
	n.enqueue(req, in.patient)
	return nil
}

// key returns the key that a packet shares with its retransmissions.
func (in *incoming) key(p wire.Packet) exchangeKey {
	return exchangeKey{
		source: in.way.to, local: in.local,
		socket: uint16(in.way.socket), identifier: p.Identifier(),
	}
}

// enqueue passes a request to the queue of its session: at once if patient, which waits for
// room, or else with the next flush.
func (n *handler) enqueue(r *request, patient bool) {
	i := n.server.queueOf(r.event.SessionID)
	switch {
	case !patient:
		n.pending[i] = append(n.pending[i], r)
	case !n.server.queues[i].put(&r.realm.queues[i], r):
		n.server.overloaded(r)
	}
}

// acknowledge answers a request that has nothing to record.
func (n *handler) acknowledge(in *incoming, p wire.Packet, x exchange, kind string, secret []byte) {
	from := len(n.buffer)
	n.buffer = wire.AppendReply(n.buffer, p, n.attributes.ReplyLen())
	reply := wire.Packet(n.keep(from))
	n.signer.Sign(reply, p.Authenticator(), secret)
	if in.duplicates.complete(x, reply, in.arrival) {
		n.reply(in, kind, ResultNoRecord, from)
	}
}

// reply sends the reply in the buffer from an index on.
func (n *handler) reply(in *incoming, kind, result string, from int) {
	n.replies.add(&in.way, n.keep(from))
	n.server.answered(in.client.peer, kind, result, in.arrival, n.server.now())
}

// typeOf returns the label of an event kind.
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

// statusServer answers a Status-Server (RFC 5997 section 4.2) if accounting can be
// recorded. If not, it stays silent, so that the NAS uses another server. The answer
// changes nothing and is never cached: each repetition is answered anew.
func (n *handler) statusServer(in *incoming, p wire.Packet) *fault {
	if n.server.options.IgnoreStatusServer || in.client.IgnoreStatusServer {
		return errStatusOff
	}
	if malformed := n.attributes.Parse(p, nil); malformed != nil {
		return faultOf(malformed)
	}
	if !n.attributes.HasMessageAuthenticator() {
		return errMessageAuthMissing
	}
	secret := in.client.messageSecret(p, &n.attributes)
	if secret == nil {
		return errMessageAuth
	}
	// Only authentic requests count against the rate, or a forger could use it up.
	if !in.client.peer.statuses.AllowN(in.arrival, 1) {
		return errStatusRate
	}
	if n.server.options.Healthy() != nil {
		return errUnhealthy
	}
	from := len(n.buffer)
	n.buffer = wire.AppendReply(n.buffer, p, wire.HeaderLen)
	n.signer.Sign(n.keep(from), p.Authenticator(), secret)
	n.reply(in, TypeStatusServer, ResultOK, from)
	return nil
}
