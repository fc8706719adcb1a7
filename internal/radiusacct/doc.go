// Package radiusacct is the RADIUS accounting listener (RFC 2866): datagrams
// and TLS connections become authenticated, de-duplicated accounting events, and
// recorded events become replies.
//
// A request passes four stages. A receiver per socket reads a batch of
// datagrams and finds the client by the source address; a stream per RadSec
// connection (RFC 6614), whose client is known by its certificate, cuts packets
// out of what it reads. From there all go one way: a handler authenticates and
// decodes the packet and looks it up in the duplicate cache, of the client or of
// its connection. New requests wait in one of a few queues, chosen by their session
// so that the events of a session keep their order. Each queue has two workers: one
// takes what little the calm clients have, the other the storms, which make way for
// the first (see queue and fairness). A worker hands all that it took to the
// [Recorder] in one call and answers what the Recorder took. Nothing starts a goroutine
// per packet, and everything that grows is bounded per client.
//
// What does not fit is dropped when it came as a datagram, which its sender will
// repeat, and unread when its client has too much waiting already; on a connection, where
// nobody repeats, reading waits instead.
//
// Octets are read and written by package wire, connections served by package radsec.
// Reading order:
//
//	server.go        the Server: sockets, clients, tasks; options.go
//	clients.go       who may send, by address and by certificate; bounds.go: about whom
//	receiver.go      datagrams of a socket (socket.go, destination.go); coalesce.go: batches
//	conversation.go  packets of a connection
//	handler.go       the way of a packet to its queue; request.go; status.go: Status-Server
//	replycache.go    duplicates; bucket.go: the rate of Status-Server
//	queue.go         requests that wait; fairness.go: storms make way
//	worker.go        batches to the Recorder; replies.go: replies to sockets
//	result.go        what became of a request; outcomes.go, report.go, losses.go
package radiusacct
