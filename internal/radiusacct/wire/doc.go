// Package wire decodes RADIUS accounting requests (RFC 2866) to events, and encodes
// replies. It has no I/O, and time is an argument.
//
// A datagram is a [Packet], which a [Signer] authenticates before its attributes are
// read. [Attributes.Parse] then checks every length, and a [Decoder] makes events of it:
//
//   - packet.go: the packet, its authenticators, reasons to refuse it, and the answer
//   - attributes.go, vendor.go: its attributes
//   - event.go: the event, its session and its NAS
//
// Numbers of codes and attributes are those of layeh.com/radius v0.0.0. Its parser copies
// every attribute, and most are never used: it takes three times as long, with 25
// allocations (BenchmarkStageValidate, BenchmarkLayehValidate).
package wire
