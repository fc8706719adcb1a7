// Package acctclient is a RADIUS accounting client (RFC 2866): it builds, signs, sends and
// retransmits requests, and accepts only replies with a correct Response Authenticator.
package acctclient
