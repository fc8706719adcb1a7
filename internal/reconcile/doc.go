// Package reconcile makes database, engine and kernel agree: at the start, when a feed is
// taken up behind a gap, and now and then while all works.
//
// A [Reconciler] compares one group after the other, stretch by stretch: a first sight finds
// what may differ, that is read again, put into the views of package drift, and repaired as
// its operations say. The lock around the life cycle is never held across I/O, so what changes
// meanwhile is remembered, and left for the next time.
//
// Reading order:
//
//	reconciler.go    the Reconciler: when what is compared
//	pass.go          one comparison of a group: what may differ, and what does
//	repair.go        operations carried out
//	drift            the comparison itself: views in, operations out
//	pace.go          the share of the time that a comparison may take
//	takeup.go        a group is taken up, at the start or behind a gap in its feed
//	adopt.go         what a start finds in kernel and database
//	recent.go        who came and went lately, for grace times
//	databasestate.go whether a database is the one that is known
//	suspect.go       a database that lost what is known to exist
//	absent.go        records that are gone by other hands; guards.go: and who is asked
//	audit.go         the conntrack table compared with the bindings
//	group.go         what is kept of a group
//	deps.go          what is needed of database, kernel and daemon
package reconcile
