// Package subscriberdb is the Redis store of subscriber records: their atomic update, the
// change feed written in the same step, their expiry, and the bindings of their NAT.
//
// A [DB] is made of parts, each a type of its own, which share a client, the groups, a
// clock and a log (db.go). Reading order:
//
// Events. A batch of accounting events is split into waves of jobs that do not depend on
// each other; each is one transaction (package txn) in each group that it
// concerns.
//
//	ingest.go        Record: events to transactions in waves, their outcome, and reports
//	groups.go        the group of an address; RADIUS clients: their realms and limits
//
// Restarts of NASes (stored by package nases).
//
//	nasrestart.go    sessions that a restart ended
//	restartguard.go  restarts that would end too many
//
// Records.
//
//	read.go          by key and all, also in short
//	admin.go         written and deleted without an event, or written back
//	suspended.go     removals that a guard suspends
//	absent.go        records that are not in Redis, and the reason
//	announce.go      announcement of their ends
//
// The feed.
//
//	feed.go          read on from an entry, and back; begun anew when its identifiers are used up
//	retention.go     kept for its readers, and trimmed
//
// All else.
//
//	mappings.go      static mappings
//	orders.go        audit entries about changes that callers order
//	values.go        settings, and of each group its marker, owner and served configuration
//	probe.go         whether Redis can be used, and keeps its data
//	garbage.go       unusable data: counted, logged, deleted where they block writes
//
// Subpackages: txn (transactions), trail (audit entries), nases, removals (by others), bindings, codec (keys and
// text forms, pure) and redisconn (connections).
package subscriberdb
