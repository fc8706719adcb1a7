// Package pcp lets subscribers open ports of their own: a server of PCP (RFC 6887), and of NAT-PMP
// (RFC 6886) for old clients. The mappings themselves are kept by others, behind [Mappings].
//
// A [Responder] makes the answer to a datagram; time is an argument, and it has no socket. A
// [Server] reads datagrams in the NAT's network namespace and sends the answers from the address
// that was asked. Package wire reads and writes the messages.
//
// Reading order:
//
//	mappings.go   the interface to the mappings, and the settings of a group
//	responder.go  who may ask, and what a request comes to
//	mapping.go    MAP and PEER; natpmp.go: NAT-PMP
//	clients.go    the clients known: their epochs, rates, and where they were heard last
//	announce.go   messages after a loss of mappings
//	server.go     the socket, the tasks; place.go: interfaces, addresses, the anycast route
package pcp
