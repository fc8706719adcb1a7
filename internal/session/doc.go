// Package session is the life cycle of a subscriber's NAT state: it follows the
// change feed of the database and drives port blocks and kernel to match.
//
// Everything that ends a subscriber arrives here as one thing, a Deleted change
// in the feed. Each inside address has a slot; step.go decides what a slot
// needs next from what is known of it, and nothing else does. I/O is done by
// executors (executors.go) that work on batches and report back; the lock is
// never held across I/O.
//
// A record that others removed, or that ran out, asks its group's guard before its
// end is announced (guards.go). What a reconcile mends is found by package drift,
// in views taken under the lock (view.go), and carried out here (drift.go).
//
// Walks over all that there is let others have the lock now and then (walk.go).
//
// Lock order: Manager.reconciling, Manager.applying, Manager.mu, then the leaf
// locks of queues, timers and watchers. The first two only make their holders
// take turns; I/O is done under them.
package session
