// Package radsec serves RADIUS over TLS (RFC 6614): it admits connections, learns whose
// they are by the certificate, cuts packets out of what they read, and writes replies.
// What a packet means, and who may send any, is the business of its [Service].
//
//   - server.go, options.go: the listeners, and the life of all connections
//   - admission.go, handshake.go, certificate.go: from accept to a known client
//   - stream.go, framer.go: one connection whose client is known
package radsec
