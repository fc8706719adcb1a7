package radiusacct

// statusServer answers a Status-Server (RFC 5997 section 4.2): yes, accounting
// is recorded here. While it is not, silence sends the NAS to another server.
// The answer has no effect and is never cached: asking again means a new
// question.
func (n *handler) statusServer(in *incoming, p packet) *fault {
	if n.server.options.IgnoreStatusServer || in.client.IgnoreStatusServer {
		return errStatusOff
	}
	if err := n.attributes.parse(p.attributes()); err != nil {
		return err
	}
	if n.attributes.messageAuth == nil {
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
	n.buffer = appendReply(n.buffer, p, 0)
	n.signer.sign(n.keep(from), p.authenticator(), secret)
	n.reply(in, TypeStatusServer, ResultOK, from)
	return nil
}
