// Package wire decodes RADIUS accounting requests (RFC 2866) to events, and encodes
// replies. It has no I/O, and time is an argument.
//
// A datagram is a [Packet], which a [Signer] authenticates before its attributes are
// read. [Attributes.Parse] then checks every length, and a [Decoder] makes events of it:
//
//   - packet.go, authenticator.go, malformed.go: the packet, its authenticators, and reasons
//     to refuse it
//   - attributes.go, addresses.go, vendor.go: its attributes
//   - event.go, identity.go: the event, its session and its NAS
//   - reply.go: the answer
//
// Numbers of codes and attributes are those of layeh.com/radius v0.0.0. Its parser copies
// every attribute, and most are never used: it takes three times as long, with 25
// allocations (BenchmarkStageValidate, BenchmarkLayehValidate).
package wire
