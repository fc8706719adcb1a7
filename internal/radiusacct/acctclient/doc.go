// Package acctclient is a RADIUS accounting client (RFC 2866): it builds and
// signs requests, sends and retransmits them, and trusts no reply whose Response
// Authenticator does not hold.
package acctclient
