// Package radiusacct is the RADIUS accounting listener (RFC 2866): datagrams
// become authenticated, de-duplicated accounting events, and recorded events
// become replies.
//
// A request passes four stages. A receiver per socket reads a batch of
// datagrams, finds the client by the source address, authenticates and decodes
// the packet and looks it up in the client's duplicate cache. New requests wait
// in the queue of one of a few workers, chosen by their session so that the
// events of a session keep their order. A worker hands all that waits to the
// [Recorder] in one call and answers what the Recorder took. Nothing starts a
// goroutine per packet, and everything that grows is bounded per client.
package radiusacct
