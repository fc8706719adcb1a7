// Package conntrack speaks ctnetlink: it lists, counts and deletes the kernel's
// connection tracking entries of inside addresses, from an index fed by events.
//
// A [Table] keeps the index and proves by it that a delete left nothing. Where the index
// is incomplete, passes through the kernel's table prove it.
//
// It stands beside github.com/ti-mo/conntrack v0.6.0. That deletes one entry a system call,
// returns the whole table as one slice, and hands over events one by one. It does not
// report events that the kernel dropped. A proved removal needs batches, and a marker of
// the last event that the kernel has queued (listener.go).
//
// Reading order:
//
//	table.go       the Table: its parts, tasks and counts
//	flow.go        an entry, as callers see it and inside; its inside addresses
//	listener.go    events into the index: the socket, and markers that prove it read
//	index.go       entries by inside address and by tuple; whether it has every entry
//	rebuild.go     the index anew from a dump, beside events; whether the kernel sends all
//	delete.go      deletes with proof by the index; provetable.go: by passes
//	ports.go       the ports that an address uses
//	counts.go      how many entries addresses have, and begin; remotes.go: with which hosts
//	bounds.go      addresses at the bounds of what they may begin
//	begun.go       counts of what busy addresses begin
//	probe.go       asks the kernel for known entries
//	losses.go      packets that conntrack dropped
//	signals.go     addresses that lost their last entry, or have too many; strays
//	conn.go        request sockets; requests.go: batches, dumps, statistics
//	wire.go        ctnetlink: its numbers, requests and answers
package conntrack
