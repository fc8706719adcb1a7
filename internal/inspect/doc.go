// Package inspect holds the NOC's view of a running sessiond and its requests:
// views that join a subscriber's record with its binding, filters, events,
// settings, status and drift. It is pure; the life cycle fills these types and
// the gRPC services show them.
//
// Reading order:
//
//	view.go      a subscriber with its binding, a binding, a conntrack session; their keys in lists
//	filter.go    the selection of subscribers, bindings and sessions; station.go: by MAC address
//	event.go     events of subscribers, as watchers hear them
//	watch.go     requests for events, and messages: events, gaps, progress
//	position.go  places in the stream of events, behind which a watch can go on
//	broadcast.go the Broadcaster, which gives each event to all watchers
//	watcher.go   one watcher: its messages, and its waits
//	removal.go   removals that wait, or that mode observe did not carry out
//	ending.go    the end of a session, with what its removal found
//	explain.go   everything about one customer; the fate of its packets, and advice
//	top.go       the busiest subscribers
//	nas.go       a BNG, with its clock
//	pool.go      an outside prefix: its blocks, its origin, its change at run time
//	portuse.go   the use of ports, and the block size that follows
//	mapping.go   a mapping that outlives its sessions
//	mode.go      the removal mode
//	settings.go  the live settings
//	status.go    the status of daemon and groups; kinds of drift and of comparisons
//	errors.go    errors of requests, each of one gRPC code
package inspect
