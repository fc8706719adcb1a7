// Package txn carries out optimistic transactions on subscriber records. A transaction
// decides about one session and one address of one group by the data in Redis, and commits
// the decision, with the entries of the change feed that tell of it, in one atomic step.
//
// A decision rests on the transaction's read set. It is guessed from the session's last
// commit, or read. The commit, a script, compares it: where Redis holds something else,
// nothing is written, and the transaction reads and decides again.
// Transactions of many callers share a round trip (group commit), and many of one group and
// kind a call of a script. The rules by which a decision is made are none of this package's:
// it asks a [Decider].
//
// Reading order:
//
//	txn.go             a transaction, from its guess to its end
//	engine.go          an Engine runs them
//	group.go           a group, as far as transactions need it
//	readset.go         the data that a decision rests on
//	sessioncache.go    sessions as their last commits left them
//	groupcommit.go     callers share round trips
//	roundtrip.go       a round trip: reads, and calls of scripts
//	batch.go           the transactions of one call
//	commit.go          the call of the general script
//	commitscript.go    the general script: it compares, and carries out lists of writes
//	fastpath.go        the calls of the scripts for what is usual
//	fastpathscripts.go these scripts
//	ttl.go             times to live
//	tombstones.go      how many ended sessions are remembered
package txn
