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
//	txn.go          a transaction: its read set, its decision, and its end
//	engine.go       an Engine runs them: group commit, round trips, and their calls
//	fastpath.go     the calls for common events, and their scripts
//	commit.go       the call of the general script, which executes lists of writes
//	recorded.go     transactions that a caller orders, with audit entries
//	sessioncache.go sessions as of their last commits
//	ttl.go          times to live, and the bound on the number of tombstones
package txn
