// Package lsn is the large-scale NAT engine: it decides, without any I/O,
// which port block of which outside address each subscriber holds.
//
// Reading order:
//
//	engine.go       the Engine and its methods
//	types.go        configuration of a group, and counts of its blocks; validate.go checks it
//	group.go        one group: the owner of each block, and the choice of the next block
//	shape.go        how pools are cut into blocks, which are numbered as cells
//	route.go        from an outside address to its pool
//	subscribers.go  from an inside address to its subscriber
//	lease.go        a block in use; receipt.go and grace.go: data about its end
//	held.go         leases in quarantine; holds.go orders their ends
//	waitqueue.go    the holders that wait for a block
//	release.go      blocks that become free; the quarantine of a whole pool
//	restore.go      bindings from before a start
//	reconfigure.go  other prefixes, blocks and limits, beside those in use
//	iterate.go      lists
//	usage.go        counts of blocks
//	check.go        every invariant, for tests and diagnosis
package lsn
