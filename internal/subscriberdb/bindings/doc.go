// Package bindings stores bindings in Redis, so that after a start every subscriber gets
// the same public ports again, and freed blocks stay in quarantine. The bindings of a group
// are fields of several hashes: the field is the outside address and first port, the value
// JSON.
//
// Reading order:
//
//	writes.go  writes, many in one step; the move out of the single hash of earlier versions
//	rows.go    stored bindings: all, in the order of inside addresses, and some by their blocks
//	digests.go all, compared with the bindings in force
//
// The log of a group's NAT:
//
//	natlog.go       writes of bindings with the events that follow, in one step
//	natreader.go    events behind a position, and the blocks in service
//	natretention.go kept for its readers, and trimmed
package bindings
