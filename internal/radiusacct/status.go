package radiusacct

import "github.com/sessiond/sessiond/internal/radiusacct/wire"

// statusServer answers a Status-Server (RFC 5997 section 4.2): yes, accounting
// is recorded here. While it is not, silence sends the NAS to another server.
// The answer has no effect and is never cached: asking again means a new
// question.
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
	// Only what is authentic counts against the rate, or else a forger could
	// silence the client.
	peer := in.client.peer
	if !peer.statuses.take(in.arrival, n.server.options.StatusRate) {
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
