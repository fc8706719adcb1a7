// Package lifecycle decides what happens to subscribers' bindings. It is pure: it does no
// I/O, reads no clock, takes no lock and writes no log. Changes of records, results of
// executors and the time go in; effects come out, in order. So a history of events always
// gives the same effects, and a test can write both down.
//
// A [Machine] has one [Slot] for each inside address that is online, or that is left in the
// kernel. Its phases are in step.go, with the function that decides the next step. Whoever
// uses a Machine carries out its [Effects], reports what they came to, and holds a lock
// around every call: a Machine is not safe for concurrent use.
//
// Reading order:
//
//	step.go        phases, and what comes next: the life cycle in one function
//	slot.go        what is known of one inside address
//	effects.go     what a Machine asks for, and what it tells
//	machine.go     the Machine, and how a step is set in motion
//	changes.go     records that came, changed or ended
//	results.go     executors report: stored, programmed, reaped
//	grace.go       subscribers that may come back to their live sessions
//	recall.go      a grace time whose Stop was not read, but found in the feed
//	due.go         what the time brings: holds, grace times, expiries
//	guards.go      the bound on what one wave of removals may take
//	resync.go      what a comparison of database, engine and kernel has repaired
//	adopt.go       what a start finds in the kernel and in the database
//	group.go       counts and settings of one group; the table of all
//	drains.go      addresses that drain
//	writes.go      writes to stored bindings that are under way
//	timers.go      when an address is looked at
//	slotindex.go   slots in the order of their addresses
//	onlineindex.go who is online, in the order of lists
package lifecycle
