// Package nftnat is the kernel side of the NAT: one nftables table with the gate and the block
// of every subscriber, and the blackhole routes of the outside pools.
//
// Package wire speaks to nf_tables, package barrier stands behind it, package memnat is an
// in-memory twin with the same contract. Reading order:
//
//	kernel.go        the Kernel: start, run, reconfigure, remove; options.go: its Options
//	apply.go         entries into the maps; program.go, element.go: as transactions
//	shadow.go        the known elements of the maps, and the changes to make
//	known.go         learning and verifying them: learn.go, lookup.go, search.go, verify.go
//	hear.go          the changes that others made; watch.go: the tasks that undo them
//	adopt.go         from the present table to the wanted one; fills maps that were lost
//	ruleset.go       the table as data: match.go, sets.go, timeouts.go, prefixes.go
//	plan.go          the operations between both (actual.go reads the present one); unused.go: the mark
//	routes.go        blackhole routes
//	icmptimeout.go   ICMP's idle timeout
//	sessiontable.go  sessions: lists, counts, reaping with proof; session.go: one session
//	sweep.go         sessions that began while nothing translated
//	bound.go         subscribers with too many sessions; ungated.go: addresses without a gate
//	fill.go          how full the conntrack table is
//	quiet.go         rules that make conntrack leave events out
//	others.go        other tables that translate subscribers' flows
//	modules.go       kernel modules that are missing; forwarding.go, surroundings.go
package nftnat
