// Package nftnat is the kernel side of the NAT: one nftables table with the
// gate and the block of every subscriber, the blackhole routes of the outside
// pools, and an in-memory twin with the same contract.
//
// Reading order:
//
//	kernel.go        the Kernel: start, run, reconfigure, remove; options.go
//	apply.go         entries into the maps; program.go, element.go: as transactions
//	shadow.go        what the maps hold, as far as is known, and what is to change
//	known.go         how that is learned and verified: learn.go, lookup.go, search.go, verify.go
//	hear.go          what others changed; watch.go: the tasks that put it right
//	adopt.go         the table as wanted, from whatever stands; fills maps that were lost
//	ruleset.go       the table as data: match.go, sets.go, timeouts.go, prefixes.go
//	plan.go          from what stands (actual.go) to what is wanted; unused.go: the mark
//	barrier.go       BPF behind nftables; tc.go: its netlink
//	routes.go        blackhole routes
//	icmptimeout.go   ICMP's idle timeout
//	sessiontable.go  sessions: lists, counts, reaping with proof; session.go: what one is
//	sweep.go         sessions that began while nothing translated
//	bound.go         subscribers with too many sessions; ungated.go: who is not online
//	fill.go          how full the conntrack table is
//	quiet.go         rules that make conntrack leave events out
//	others.go        others that translate subscribers' flows
//	modules.go       kernel modules that are missing; forwarding.go, surroundings.go
//	memory.go        the twin; memory_traffic.go: its simulated traffic
package nftnat
