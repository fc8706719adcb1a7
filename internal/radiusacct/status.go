package radiusacct

import "github.com/sessiond/sessiond/internal/radiusacct/wire"

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
