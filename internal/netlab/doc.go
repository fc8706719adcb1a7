// Package netlab builds a subscriber, a CGN and an internet host out of network
// namespaces on the real kernel, and looks at them from outside.
package netlab
