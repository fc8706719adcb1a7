// Package bindings stores bindings in Redis, so that a start gives every subscriber the same
// public ports back, and keeps freed blocks in their quarantine. Those of a group are fields
// of some hashes, by outside address and first port, with JSON as their values.
//
// Reading order:
//
//	rows.go    bindings as they stand there: all, and some by their blocks
//	inorder.go all, in the order of their inside addresses
//	writes.go  written and removed, many in one step
//	moves.go   moved out of the one hash that earlier versions had
package bindings
