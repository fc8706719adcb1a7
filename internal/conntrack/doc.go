// Package conntrack speaks ctnetlink: it lists, counts and deletes the kernel's
// connection tracking entries of inside addresses, from an index fed by events.
//
// A [Table] keeps the index and proves by it that a delete left nothing. Where the index
// is incomplete, passes through the kernel's table prove it.
//
// It stands beside github.com/ti-mo/conntrack v0.6.0. That deletes one entry a system call,
// returns the whole table as one slice, and hands over events one by one. It does not
// report events that the kernel dropped. A proved removal needs batches, and a marker of
// the last event that the kernel has queued (marker.go).
//
// Reading order:
//
//	table.go         the Table: its parts and its tasks
//	flow.go          an entry, as callers see it
//	index.go         entries by inside address; lookup.go finds them by tuple
//	listener.go      events into the index; receiver.go reads them, marker.go proves them read
//	completeness.go  whether the index has every entry
//	rebuild.go       the index anew from a dump, beside events; rebuildloop.go says when
//	inside.go        which addresses are inside; own.go: the machine's own
//	delete.go        deletes with proof: proveindex.go by the index, provetable.go by passes
//	entryref.go      an entry to be deleted; counts.go and outcome.go add up the results
//	probe.go         asks the kernel for known entries; idle.go: addresses that lost their last
//	crowds.go        addresses with too many entries; strays.go: flows that others translated
//	conn.go          a request socket; pool.go keeps idle ones; batch.go, dump.go, fill.go ask
//	wire.go          numbers of ctnetlink; parse.go reads, encode.go writes
//	sysctl.go        whether the kernel sends events and counts packets
package conntrack
