// Package wire reads the octets of RADIUS accounting requests (RFC 2866) as events, and
// writes the octets of replies. It has no I/O, and time is an argument.
//
// A datagram is a [Packet], which a [Signer] authenticates before anything else of it is
// looked at. [Attributes.Parse] then checks it to the octet, and a [Decoder] makes
// events of it:
//
//   - packet.go, authenticator.go, malformed.go: the packet, its authenticators, and why it
//     is refused
//   - attributes.go, addresses.go, vendor.go: what its attributes say
//   - event.go, identity.go: what happened, to whom, at which NAS
//   - reply.go: the answer
//
// Numbers of codes and attributes are those of layeh.com/radius v0.0.0; its parser copies
// every attribute, and most are never looked at: it takes three times as long, with 25
// allocations (BenchmarkStageValidate, BenchmarkLayehValidate).
package wire
