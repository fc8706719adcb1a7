// Package lifecycle decides about subscribers' bindings. It is pure: it does no
// I/O, reads no clock, takes no lock and writes no log. Changes of records, results of
// executors and the time go in; effects come out, in order. So a history of events always
// gives the same effects, and a test can write both down.
//
// A [Machine] has one [Slot] for each inside address that is online, or that
// has remains in the kernel. Its phases are in machine.go, with the function that
// decides the next step. The caller of a Machine executes its [Effects],
// reports their results, and holds a lock around every call: a Machine is not
// safe for concurrent use.
//
// Reading order:
//
//	machine.go  the life cycle from a change of a record to the results of executors
//	slot.go     the state of one inside address
//	effects.go  requests of a Machine, and transitions
//	forwards.go the mappings of slots, which belong to users or inside addresses
//	grace.go    subscribers that may return to their live sessions
//	growth.go   one block more for a subscriber that uses most of its ports, or less
//	narrow.go   the part of a block where new sessions find ports, for one that gets none
//	natlog.go   who holds a binding, for the NAT log
//	timers.go   holds, grace times and expiries that are due
//	group.go    counts and settings of one group, and its bound on a wave of removals
//	resync.go   repairs by a comparison of database, engine and kernel
//	adopt.go    taking over the state of kernel and database at a start
//	indexes.go  slots by address, online addresses in the order of lists, drains,
//	            grace times, writes under way
package lifecycle
