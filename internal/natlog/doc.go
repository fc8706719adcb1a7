// Package natlog sends the log of a NAT to collectors: IPFIX, NetFlow v9, syslog, and lines of
// JSON over HTTP. Each collector has a Sink with a bounded spool of its own on disk, so that
// none waits for another, and a daemon that was away goes on where it stopped. Whoever appends
// waits for the disk only.
//
// Each event that stays within the bound of the spool reaches the collector at least once, as
// far as the protocol can tell: over UDP nothing can, over TCP and TLS the connection has to
// live on for a while, over HTTP the collector confirms.
//
// Reading order:
//
//	follower.go from the log in the database into a sink, or another destination
//	interims.go blocks in service, told to a sink
//	sink.go     a sink: its options, the task that sends, its figures
//	spool.go    the spool: events and positions in one local transaction
//	target.go   addresses of collectors
//	datagram.go UDP
//	stream.go   TCP and TLS
//	post.go     HTTP
//	wire/       the octets of all of them
package natlog
