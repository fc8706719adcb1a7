// Package reconcile makes database, engine and kernel agree: at the start, when
// a feed is taken up after a gap, and periodically in operation.
//
// A [Reconciler] compares one group after the other, in stretches. A first look
// finds possible differences. These are read again, put into the views of
// package drift, and repaired by its operations. The lock around the life cycle
// is never held across I/O, so addresses that change meanwhile are recorded,
// and left for the next comparison.
//
// Reading order:
//
//	reconciler.go    the Reconciler: intervals and kinds of comparisons
//	pass.go          one comparison of a group: its first looks
//	doubts.go        second look at possible differences
//	repair.go        execution of operations
//	drift            the comparison itself: views in, operations out
//	pace.go          the share of time that a comparison may take
//	resume.go        taking up a group, at the start or after a gap in its feed
//	adopt.go         taking over the state of kernel and database at a start
//	recent.go        recent changes of sessions, for grace times
//	databasestate.go whether a database is the known one
//	suspect.go       a database that lost known data
//	absent.go        records that others removed; guards.go: the decision about them
//	audit.go         the conntrack table compared with the bindings
//	group.go         the state of a group
//	deps.go          the required interfaces of database, kernel and daemon
package reconcile
