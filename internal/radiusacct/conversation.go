package radiusacct

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

// connectionCache bounds the duplicate cache of a connection, in octets. There are 256
// identifiers, so only very long Proxy-States fill it.
const connectionCache = 1 << 20

// A conversation serves the packets of one RadSec connection through the same handler as
// datagrams, with a duplicate cache of its own. Workers send their replies to its stream
// directly.
type conversation struct {
	*handler
	stream     *radsec.Stream
	duplicates *replyCache
	table      *clientTable // the table in which client was found
	client     *client
}

// connections implements the interface that radsec needs of a Server.
type connections struct{ *Server }

// Identify returns the name of the client that now has an identity.
func (s connections) Identify(who radsec.Identity) string {
	if c, ok := s.clients.Load().certificates.Identify(who); ok {
		return c.peer.name
	}
	return ""
}

// Converse returns a conversation, which serves the packets of a connection.
func (s connections) Converse(stream *radsec.Stream) radsec.Conversation {
	c := &conversation{stream: stream, duplicates: newReplyCache(connectionCache, s.now())}
	c.handler = newHandler(s.Server, c)
	return c
}

// Now returns the time.
func (s connections) Now() time.Time { return s.now() }

// Client returns the present configured name of the client.
func (c *conversation) Client() string {
	if table := c.server.clients.Load(); table != c.table {
		c.table = table
		c.client, _ = table.certificates.Identify(c.stream.Identity())
	}
	if c.client == nil {
		return ""
	}
	return c.client.peer.name
}

// Serve serves one packet.
func (c *conversation) Serve(p wire.Packet) (fatal bool) {
	in := c.incoming(p)
	kind, err := c.serve(in)
	c.buffer = c.buffer[:0] // the stream has copied the replies
	if err != nil {
		c.server.refused(in, kind, err)
	}
	return err != nil && err.fatal
}

// Refuse counts octets that are not a packet.
func (c *conversation) Refuse(m *wire.Malformed) {
	c.server.refused(c.incoming(nil), TypeUnread, faultOf(m))
}

func (c *conversation) incoming(p wire.Packet) *incoming {
	return &incoming{
		octets:     p,
		client:     c.client,
		duplicates: c.duplicates,
		source:     c.stream.Source(),
		way:        replyPath{stream: c.stream},
		arrival:    c.server.now(),
		patient:    true,
	}
}

// add sends a reply that needs no worker.
func (c *conversation) add(_ *replyPath, reply []byte) { c.stream.Send(reply) }

// Opened counts a connection.
func (s connections) Opened(client string) { s.options.Observer.ConnectionOpened(client) }

// Closed counts a connection that was served.
func (s connections) Closed(client string, source netip.AddrPort, cause string) {
	s.options.Observer.ConnectionClosed(client, cause)
	s.options.Logger.Debug("RadSec connection closed", "client", client, "source", source, "cause", cause)
}

// Refused counts a connection that was refused.
func (s connections) Refused(client string, source netip.AddrPort, cause string, err error) {
	s.options.Observer.ConnectionRefused(client, cause)
	if suppressed, ok := s.refusals.Allow(s.now()); ok {
		s.options.Logger.Warn("RadSec connection refused", "client", client, "source", source,
			"cause", cause, "error", err, "suppressed", suppressed)
	}
}

// AcceptFailed counts a failure of accept(2).
func (s connections) AcceptFailed(err error) {
	s.losses.accepts.Add(1)
	if suppressed, ok := s.accepts.Allow(s.now()); ok {
		s.options.Logger.Error("RadSec connections not accepted", "error", err, "suppressed", suppressed)
	}
}
