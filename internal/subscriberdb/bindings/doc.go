// Package bindings stores bindings in Redis, so that after a start every subscriber gets
// the same public ports again, and freed blocks stay in quarantine. The bindings of a group
// are fields of several hashes: the field is the outside address and first port, the value
// JSON.
//
// Reading order:
//
//	rows.go    stored bindings: all, and some by their blocks
//	inorder.go all, in the order of their inside addresses
//	writes.go  writes and removals, many in one step
//	moves.go   move of the bindings out of the single hash of earlier versions
package bindings
