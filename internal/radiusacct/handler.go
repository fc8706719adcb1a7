package radiusacct

import (
	"hash/maphash"
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

// From a packet to a request in its queue.

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
	buffer     []byte       // replies, until they are sent; its owner then empties it
}

func newHandler(s *Server, replies replier) *handler {
	return &handler{server: s, replies: replies, signer: wire.NewSigner(), pending: make([][]*request, len(s.queues))}
}

// flush passes the pending requests to the queues, many at once: this costs less itself,
// and gives the workers large batches, which cost less too.
func (h *handler) flush() {
	for i, requests := range h.pending {
		if len(requests) == 0 {
			continue
		}
		for _, r := range h.server.queues[i].putAll(requests, i) {
			h.server.overloaded(r)
		}
		clear(requests)
		h.pending[i] = requests[:0]
	}
}

// keep returns the reply in the buffer from an index on.
func (h *handler) keep(from int) []byte { return h.buffer[from:len(h.buffer):len(h.buffer)] }

// serve processes a packet by its code. The returned kind is the most specific one known.
func (h *handler) serve(in *incoming) (kind string, err *fault) {
	p, malformed := wire.Parse(in.octets)
	switch {
	case malformed != nil:
		return TypeUnread, faultOf(malformed)
	case p.Code() == radius.CodeStatusServer:
		return TypeStatusServer, h.statusServer(in, p)
	case p.Code() != radius.CodeAccountingRequest:
		return TypeUnread, errUnknownCode
	}
	// Only authenticated octets reach a parser, the cache, or the log in detail.
	secret := in.client.secret(h.signer, p)
	if secret == nil {
		return TypeUnread, errAuthenticator
	}
	if malformed := h.attributes.Parse(p, in.client.ServiceMarks); malformed != nil {
		return TypeUnread, faultOf(malformed)
	}
	switch there := h.attributes.HasMessageAuthenticator(); {
	case !there && in.client.RequireMessageAuthenticator:
		return TypeUnread, errMessageAuthMissing
	case there && !wire.MessageAuthentic(p, &h.attributes, secret):
		return TypeUnread, errMessageAuth
	}
	event, malformed := h.attributes.Kind()
	kind = typeOf[event]
	if malformed != nil {
		if !in.client.AcknowledgeIncomplete {
			return kind, faultOf(malformed)
		}
		event = 0
	}
	return kind, h.accept(in, p, event, kind, secret)
}

// secret returns the secret that authenticates p, or nil.
func (c *client) secret(s *wire.Signer, p wire.Packet) []byte {
	if s.Authentic(p, c.Secret) {
		return c.Secret
	}
	if len(c.PreviousSecret) > 0 && s.Authentic(p, c.PreviousSecret) {
		return c.PreviousSecret
	}
	return nil
}

// accept looks a sound request up in the duplicate cache and queues a new one. An event of
// 0 has nothing to record.
func (h *handler) accept(in *incoming, p wire.Packet, event subscriber.EventKind, kind string, secret []byte) *fault {
	length, from := h.attributes.ReplyLen(), len(h.buffer)
	key := exchangeKey{
		source: in.way.to, local: in.local, identifier: p.Identifier(), socket: uint16(in.way.socket),
	}
	x, seen, buffer := in.duplicates.begin(key, p.Authenticator(), length, in.arrival, h.buffer)
	h.buffer = buffer
	switch seen {
	case answered:
		h.reply(in, kind, ResultDuplicate, from)
		return nil
	case inProgress:
		return errInProgress
	case full:
		return errCacheFull
	}
	if event == 0 {
		h.acknowledge(in, p, x, kind, secret)
		return nil
	}
	req := requests.Get().(*request)
	req.kind, req.secret, req.peer, req.realm = kind, secret, in.client.peer, in.client.realm
	req.duplicates, req.exchange = in.duplicates, x
	req.way, req.arrival, req.authenticator = in.way, in.arrival, p.Authenticator()
	req.reply = wire.AppendReply(req.short[:0], p, length)
	req.event.Digest = p.Digest()
	req.more = h.decoder.Decode(&req.event, &h.attributes, event, &in.client.sender, in.source.Addr(), in.arrival)
	if in.client.bounds != nil {
		in.client.bounds.mark(&req.event, req.more)
	}
	// The events of a session keep their order: they are always in the same queue.
	i := int(maphash.Comparable(h.server.seed, req.event.SessionID) % uint64(len(h.server.queues)))
	switch {
	case !in.patient:
		h.pending[i] = append(h.pending[i], req)
	case !h.server.queues[i].put(&req.realm.queues[i], req):
		h.server.overloaded(req)
	}
	return nil
}

// acknowledge answers a request that has nothing to record.
func (h *handler) acknowledge(in *incoming, p wire.Packet, x exchange, kind string, secret []byte) {
	from := len(h.buffer)
	h.buffer = wire.AppendReply(h.buffer, p, h.attributes.ReplyLen())
	reply := wire.Packet(h.keep(from))
	h.signer.Sign(reply, p.Authenticator(), secret)
	if in.duplicates.complete(x, reply, in.arrival) {
		h.reply(in, kind, ResultNoRecord, from)
	}
}

// reply sends the reply in the buffer from an index on.
func (h *handler) reply(in *incoming, kind, result string, from int) {
	h.replies.add(&in.way, h.keep(from))
	h.server.options.Observer.Request(in.client.peer.name, kind, result, h.server.now().Sub(in.arrival))
}

// typeOf has the labels of the kinds of event. Kind 0 has nothing to record.
var typeOf = [...]string{
	0:                             TypeOther,
	subscriber.EventStart:         TypeStart,
	subscriber.EventInterim:       TypeInterim,
	subscriber.EventStop:          TypeStop,
	subscriber.EventAccountingOn:  TypeAccountingOn,
	subscriber.EventAccountingOff: TypeAccountingOff,
}

// Status-Server.

// statusServer answers a Status-Server (RFC 5997 section 4.2) if accounting can be
// recorded. If not, it stays silent, so that the NAS uses another server. The answer
// changes nothing and is never cached: each repetition is answered anew.
func (h *handler) statusServer(in *incoming, p wire.Packet) *fault {
	if h.server.options.IgnoreStatusServer || in.client.IgnoreStatusServer {
		return errStatusOff
	}
	if malformed := h.attributes.Parse(p, nil); malformed != nil {
		return faultOf(malformed)
	}
	if !h.attributes.HasMessageAuthenticator() {
		return errMessageAuthMissing
	}
	secret := in.client.messageSecret(p, &h.attributes)
	if secret == nil {
		return errMessageAuth
	}
	// Only authentic requests count against the rate, or a forger could use it up.
	if !in.client.peer.statuses.AllowN(in.arrival, 1) {
		return errStatusRate
	}
	if h.server.options.Healthy() != nil {
		return errUnhealthy
	}
	from := len(h.buffer)
	h.buffer = wire.AppendReply(h.buffer, p, wire.HeaderLen)
	h.signer.Sign(h.keep(from), p.Authenticator(), secret)
	h.reply(in, TypeStatusServer, ResultOK, from)
	return nil
}

// messageSecret returns the secret that authenticates p's Message-Authenticator, or nil.
func (c *client) messageSecret(p wire.Packet, a *wire.Attributes) []byte {
	if wire.MessageAuthentic(p, a, c.Secret) {
		return c.Secret
	}
	if len(c.PreviousSecret) > 0 && wire.MessageAuthentic(p, a, c.PreviousSecret) {
		return c.PreviousSecret
	}
	return nil
}
