// Package netlab builds a subscriber, a CGN and an internet host from network
// namespaces on the real kernel, and observes them from outside.
//
// Reading order:
//
//	lab.go        the Lab: its three namespaces, interfaces and addresses
//	namespace.go  a network namespace; names.go: its name, and leftovers of killed processes
//	links.go      interfaces and routes; rename.go
//	command.go    commands in a namespace; sockets.go: connections
//
// Traffic:
//
//	echo.go       servers that tell a client its address; ask.go: clients of theirs
//	ping.go       pings
//	flow.go       a long-lived TCP flow; end.go: one side of it
//	raw.go        packets of any source and protocol
//	capture.go    the packets that cross an interface; packet.go: one of them
package netlab
