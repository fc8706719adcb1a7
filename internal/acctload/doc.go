// Package acctload puts a RADIUS accounting server under load: it sends signed
// Accounting-Requests (RFC 2866) from few sockets in large batches, accepts
// only replies with a valid Response Authenticator, and measures latencies.
//
// Reading order:
//
//	run.go         a run: its sockets, its stages, its end
//	options.go     the Options
//	scenario.go    the courses of sessions; script.go: the steps of each
//	population.go  subscribers, and the identifiers of their sessions
//	lane.go        one socket with its subscribers
//	exchange.go    the requests of a socket that wait for replies
//	pace.go        when the next request is due
//	flood.go       requests without a look at replies
//	socket.go      datagrams in batches
//	template.go    a request, patched in place; verify.go: the check of a reply
//	histogram.go   latencies; result.go: all measurements
package acctload
