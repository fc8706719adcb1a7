// Package acctload puts a RADIUS accounting server under load: it sends signed
// Accounting-Requests (RFC 2866) from few sockets in large batches, trusts no
// reply whose Response Authenticator does not hold, and measures latencies.
package acctload
