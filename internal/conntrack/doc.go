// Package conntrack speaks ctnetlink: it lists, counts and deletes the kernel's
// connection tracking entries of inside addresses, from an index fed by events.
//
// A [Table] keeps the index and proves by it that a delete left nothing. Where the index
// cannot tell, passes through the kernel's table prove it.
//
// It stands beside github.com/ti-mo/conntrack v0.6.0, which deletes one entry a system
// call, returns the whole table as one slice, and hands over events one by one, with no
// word on those that the kernel dropped: a removal that is proved needs batches, and the
// end of what was told (marker.go).
//
// Reading order:
//
//	table.go         the Table: what it is made of, and its tasks
//	flow.go          an entry, as callers see it
//	index.go         entries by inside address; lookup.go finds them by tuple
//	listener.go      events into the index; receiver.go reads them, marker.go knows which came
//	completeness.go  whether the index has every entry
//	rebuild.go       the index anew from a dump, beside events; rebuildloop.go says when
//	inside.go        which addresses are inside; own.go: the machine's own
//	delete.go        deletes with proof: proveindex.go by the index, provetable.go by passes
//	inflight.go      waits for packets that were under way; tour.go: a thread on each processor
//	entryref.go      an entry to be deleted; counts.go and outcome.go add up what became of it
//	probe.go         entries that the kernel is asked for; idle.go: addresses that lost their last
//	crowds.go        addresses with too many entries; strays.go: flows that others translated
//	conn.go          a request socket, of which pool.go keeps some; batch.go, dump.go, fill.go ask
//	wire.go          numbers of ctnetlink; parse.go reads, encode.go writes
//	sysctl.go        whether the kernel tells and counts
package conntrack
