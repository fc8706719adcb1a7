// Package trail stores the audit entries in Redis, each in the same step as its change, so
// that there is no change without its entry and no entry without its change. Each group has
// a trail, in the slot of its other keys, and the daemons have a common one, in that of the
// settings. An entry is sealed in Go, behind the last one, and the script that changes
// something first compares that the last one still is the last.
//
// Reading order:
//
//	scripts.go   scripts in two forms: as they are, and with an entry
//	store.go     the Store appends entries, and remembers the ends of the trails
//	names.go     the names of all trails, those of groups that are not in force too
//	orders.go    an order to the kernel: an entry before it and one behind it
//	read.go      entries, newest first, and all in order
//	verify.go    the check of a trail
//	retention.go the oldest entries removed
//	requests.go  the outcomes of callers' requests, for those who ask again
package trail
