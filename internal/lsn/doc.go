// Package lsn is the large-scale NAT engine: it decides, without any I/O,
// which port block of which outside address each subscriber holds.
//
// Reading order:
//
//	engine.go       the Engine and its methods
//	config.go       configuration of a group, and its check
//	group.go        one group: the owner of each block, the choice of the next block, blocks
//	                that become free, the quarantine of a whole pool; its subscribers by inside
//	                address, and those that wait for a block
//	shape.go        how pools are cut into blocks, which are numbered as cells
//	lease.go        a block in use, then in quarantine; the order of the ends of holds
//	formula.go      deterministic mode: each inside address has one block
//	grow.go         one block more for a binding, or less
//	ranked.go       free blocks of a group whose bindings may grow
//	restore.go      bindings from before a start
//	reconfigure.go  other prefixes, blocks and limits, beside those in use
//	iterate.go      lists, and counts of blocks
//	check.go        every invariant, for tests and diagnosis
package lsn
