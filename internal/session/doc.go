// Package session is the shell around the life cycle of subscribers' NAT state: it follows
// the change feed of the database, hands each change to package lifecycle, and carries out
// the effects in database and kernel.
//
// Everything that ends a subscriber arrives here as one thing, a Deleted change
// in the feed. lifecycle decides; effects.go puts its effects into queues. I/O is done by
// executors that work on batches and report back; the lock is never held across I/O.
//
// A [Manager] owns the lock, the life cycle and the groups, which its parts share. Each part
// has one purpose, and declares beside it what it needs of database and kernel:
//
//	manager.go     the Manager: its parts, and the tasks that they run
//	shared.go      what all parts work on; lock.go: the lock around it
//	feed.go        the follower of the groups' change feeds
//	effects.go     what lifecycle asks for, into queues
//	executors.go   work in the kernel: cuts, openings, reaps
//	store.go       work in the database: writes of bindings
//	timers.go      holds, grace times and expiries
//	draining.go    the last session of a draining address
//	readiness.go   whether all is served, and if not, why
//	reports.go     readers of what happens: metrics, log, watchers
//	watchdog.go    settings and markers, looked at now and then
//	database.go    whether the database takes accounting; retry.go
//	settings.go    the settings in force
//	drains.go      what a start serves; what drains beside the configuration
//	served.go      what is served, kept in the database
//	groups.go      a configuration that changed
//	lease.go       the leases that make this the only daemon of a group
//	alarms.go      what alarms rest on
//	backend.go     what callers of gRPC ask, in subscribers.go, bindings.go, removals.go,
//	               sessions.go, nases.go, status.go; lists.go
//
// Package reconcile compares database, life cycle and kernel, and settles what becomes of
// records that are gone, under the same lock.
//
// Lock order: servedGroups.regrouping, sharedState.reconciling, liveSettings.applying,
// sharedState.mu, then the leaf locks of queues, timers, watchers, leases and the database's
// health. The first three only make their holders take turns; I/O is done under them.
package session
