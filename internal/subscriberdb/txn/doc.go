// Package txn runs optimistic transactions on subscriber records. A transaction decides
// about one session and one address of one group by the data in Redis, and commits the
// decision, with its entries in the change feed, in one atomic step.
//
// A decision depends on the transaction's read set, which is guessed from the session's
// last commit, or read. The commit, a script, compares the read set with Redis: if they
// differ, nothing is written, and the transaction reads and decides again. Transactions of
// many callers share a round trip (group commit), and those of one group and kind share a
// script call. The rules of the decisions are not in this package: it calls a [Decider].
//
// Reading order:
//
//	txn.go             a transaction, from its guess to its end
//	engine.go          an Engine runs them
//	group.go           the data of a group for transactions
//	readset.go         the data that a decision depends on
//	sessioncache.go    sessions as of their last commits
//	groupcommit.go     callers share round trips
//	roundtrip.go       a round trip: reads, and calls of scripts
//	batch.go           the transactions of one call
//	commit.go          the call of the general script
//	commitscript.go    the general script: it compares, and executes lists of writes
//	fastpath.go        the calls of the scripts for common events
//	fastpathscripts.go these scripts
//	ttl.go             times to live
//	tombstones.go      bounds on the number of tombstones
package txn
