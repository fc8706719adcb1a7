// Package lifecycle decides about subscribers' bindings. It is pure: it does no
// I/O, reads no clock, takes no lock and writes no log. Changes of records, results of
// executors and the time go in; effects come out, in order. So a history of events always
// gives the same effects, and a test can write both down.
//
// A [Machine] has one [Slot] for each inside address that is online, or that
// has remains in the kernel. Its phases are in step.go, with the function that
// decides the next step. The caller of a Machine executes its [Effects],
// reports their results, and holds a lock around every call: a Machine is not
// safe for concurrent use.
//
// Reading order:
//
//	step.go        phases, and the next step: the life cycle in one function
//	slot.go        the state of one inside address
//	effects.go     requests of a Machine, and transitions
//	machine.go     the Machine, and the start of each step
//	changes.go     records that were created, changed or deleted
//	results.go     reports of executors: stored, programmed, reaped
//	grace.go       subscribers that may return to their live sessions
//	recall.go      a grace time whose Stop was not read, but found in the feed
//	due.go         holds, grace times and expiries that are due
//	guards.go      the bound on one wave of removals
//	resync.go      repairs by a comparison of database, engine and kernel
//	adopt.go       taking over the state of kernel and database at a start
//	group.go       counts and settings of one group; the table of all
//	drains.go      draining addresses
//	writes.go      writes to stored bindings that are under way
//	timers.go      due times by address
//	slotindex.go   slots in the order of their addresses
//	onlineindex.go online addresses, in the order of lists
package lifecycle
