// Package acctload puts a RADIUS accounting server under load: it sends signed
// Accounting-Requests (RFC 2866) from few sockets in large batches, accepts
// only replies with a valid Response Authenticator, and measures latencies.
package acctload
