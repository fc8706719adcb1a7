// Package wire reads and writes messages of PCP (RFC 6887) and NAT-PMP (RFC 6886). It has no I/O.
//
// Reading order:
//
//   - message.go: requests and answers of PCP
//   - option.go: the options of PCP
//   - result.go: result codes, and how long an error lasts
//   - natpmp.go: NAT-PMP
package wire
