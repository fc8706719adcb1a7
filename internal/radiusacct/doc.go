// Package radiusacct is the RADIUS accounting listener (RFC 2866): datagrams
// and TLS connections become authenticated, de-duplicated accounting events, and
// recorded events become replies.
//
// A request passes four stages. A receiver per socket reads a batch of
// datagrams and finds the client by the source address; a stream per RadSec
// connection (RFC 6614), whose client is known by its certificate, splits the
// octets it reads into packets. The further stages are common: a handler authenticates and
// decodes the packet and looks it up in the duplicate cache, of the client or of
// its connection. New requests wait in one of a few queues, chosen by their session
// so that the events of a session keep their order. Each queue has two workers: one
// takes the few requests of calm clients, the other the storms, which are slowed down
// while there are calm clients (see queue and fairness). A worker passes its batch to the
// [Recorder] in one call and answers the recorded requests. Nothing starts a goroutine
// per packet, and everything that grows is bounded per client.
//
// A datagram without room in its queue is dropped, because its sender will repeat it; if its
// client has too much waiting already, it is dropped before it is parsed. A sender on a
// connection does not repeat, so reading waits instead.
//
// Package wire reads and writes packets, package radsec serves connections.
// Reading order:
//
//	server.go        the Server: sockets, clients, tasks; options.go
//	clients.go       the permitted senders, by address and certificate, and their subscribers
//	receiver.go      datagrams of a socket: where they were sent, and when to read the next
//	conversation.go  packets of a connection
//	handler.go       from a packet to its queue; Status-Server
//	replycache.go    duplicates
//	queue.go         requests that wait, and fairness: calm clients before storms
//	worker.go        batches to the Recorder, and replies to sockets
//	result.go        the results of requests, how they are counted and logged
package radiusacct
