// Package netlab builds a subscriber, a CGN and an internet host from network
// namespaces on the real kernel, and observes them from outside.
package netlab
