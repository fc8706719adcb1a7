// Package session is the shell around the life cycle of subscribers' NAT state: it follows
// the change feed of the database, hands each change to package lifecycle, and carries out
// the effects in database and kernel.
//
// Everything that ends a subscriber arrives here as one thing, a Deleted change
// in the feed (feed.go). lifecycle decides; effects.go puts its effects into queues, and
// tells metrics, log and watchers of its transitions. I/O is done by executors
// (executors.go, store.go) that work on batches and report back; the lock is
// never held across I/O.
//
// A record that others removed, or that ran out, asks its group's guard before its
// end is announced (guards.go). What a reconcile mends is found by package drift,
// in views taken under the lock (driftviews.go), and carried out here (repair.go).
//
// Walks over all that there is let others have the lock now and then (walk.go).
//
// What is served beside the configuration is found out before any group is touched
// (drains.go), kept in the database and forgotten when it is empty (served.go). The
// lease of each group makes this the only daemon that serves it (lease.go).
//
// Lock order: Manager.regrouping, Manager.reconciling, Manager.applying,
// Manager.mu, then the leaf locks of queues, timers and watchers. The first three
// only make their holders take turns; I/O is done under them.
package session
