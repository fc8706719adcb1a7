// Package radsec serves RADIUS over TLS (RFC 6614): it admits connections, finds their
// clients by the certificate, splits the received octets into packets, and writes replies.
// Its [Service] has the permitted clients and serves the packets.
//
//   - server.go, options.go: the listeners, and the life of all connections
//   - admission.go, handshake.go, certificate.go: from accept to a known client
//   - stream.go, framer.go: one connection whose client is known
package radsec
