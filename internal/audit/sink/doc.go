// Package sink copies audit entries out of Redis: as lines of JSON to a file, or as messages
// to syslog. It follows the trails with a stored position, so that no change waits for a
// sink, and a daemon that was away goes on where it stopped. Each entry is written at least
// once.
//
// Reading order:
//
//	follower.go one sink that follows the trails
//	file.go     a file, which may be moved away meanwhile
//	syslog.go   syslog (RFC 5424), over a socket of the machine, UDP, TCP or TLS
package sink
