// Package session is the shell around the life cycle of subscribers' NAT state: it follows
// the change feed of the database, hands each change to package lifecycle, and carries out
// the effects in database and kernel.
//
// Every end of a subscriber arrives here in one form, a Deleted change in the
// feed. Package lifecycle decides; effects.go puts its effects into queues.
// Executors do the I/O in batches and report back; the lock is never held
// across I/O.
//
// A [Manager] owns the lock, the life cycle and the groups, which its parts
// share. Each part has one purpose, and declares next to it the methods of
// database and kernel that it needs:
//
//	manager.go     the Manager: its parts, the tasks that they run, and the state that they share
//	feed.go        the follower of the groups' change feeds
//	effects.go     the effects of lifecycle, into queues; the lock that wakes their workers;
//	               readers of transitions: metrics, log, watchers
//	watches.go     watchers that come back, replay.go: by the feeds; eventplaces.go: how far the
//	               events have come in these
//	executors.go   work in the kernel (cuts, openings, reaps) and in the database (writes of
//	               bindings), repeated until it succeeds
//	natlog.go      the log of blocks, where it does not follow from the writes of bindings
//	timers.go      holds, grace times and expiries; the last session of a draining address
//	database.go    whether the database takes accounting; periodic reads of settings and markers
//	settings.go    the settings in force
//	mappings.go    mappings that outlive their sessions: made, ended, stored; staticports.go: their
//	               ports in the kernel, and a changed configuration
//	asks.go        mappings that subscribers ask for by PCP
//	growth.go      blocks that bindings get and give back; pins.go: inside ports that keep theirs,
//	               and remote endpoints with a part of a block; refusedlooks.go: the time for those without
//	ports.go       the ports that subscribers use, and their peaks; limits.go: who is refused sessions
//	drains.go      the groups that a start serves, with draining remains of older configurations
//	served.go      the served configuration, kept in the database, and changed by a reload
//	terms.go       what the kernel has for the addresses of groups, also of those that drain
//	pools.go       outside prefixes changed at run time; poolchanges.go: over the configuration
//	formula.go     the formulas of deterministic mode, in the log
//	lease.go       the leases that make this the only daemon of a group
//	alarms.go      the state that alarms depend on
//	status.go      whether everything is served, and if not, why
//	backend.go     answers to gRPC callers, in subscribers.go, bindings.go, removals.go,
//	               sessions.go, nases.go, mappinglists.go, status.go; lists.go
//	explain.go     the Desk: everything about one customer; top.go: the busiest ones
//	endings.go     the newest ends of sessions; refusals.go: who was refused sessions lately
//	audits.go      audit trails, orders to the kernel, and answers to callers who only validate
//
// Package reconcile compares database, life cycle and kernel, and decides about
// records that are gone, under the same lock.
//
// Lock order: servedGroups.regrouping, sharedState.reconciling, liveSettings.applying,
// sharedState.mu, then the leaf locks of queues, timers, watchers, leases and the database's
// health. The first three only serialize their holders; I/O is done while they
// are held.
package session
