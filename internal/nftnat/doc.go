// Package nftnat is the kernel side of the NAT: one nftables table with the gate and the block
// of every subscriber, and the blackhole routes of the outside pools.
//
// Package wire speaks to nf_tables, package barrier stands behind it, package memnat is an
// in-memory twin with the same contract. Reading order:
//
//	kernel.go        the Kernel: start, run, reconfigure, remove; its Options
//	apply.go         entries into the maps, as transactions; what is left of those that were cut: Reap
//	shadow.go        the known elements of the maps
//	known.go         learning them: questions of callers, and look-ups by key
//	search.go        elements at unnamed addresses; the verification of all
//	watch.go         the changes that others made, and the tasks that undo them
//	adopt.go         from the present table to the wanted one; fills maps that were lost
//	plan.go          the operations between both, and the present table as read
//	ruleset.go       the table as data: its chains and rules
//	established.go   the short way of packets of translated flows, and what may leave
//	shortway.go      when flows have it: the label, and who is being cut off
//	closing.go       the set of those
//	comments.go      what an operator reads about its chains and sets
//	nonat.go         sessions that keep their inside address
//	sets.go          its sets and maps, and their elements in the kernel's form
//	mappings.go      learned mappings: full cone, as sets and rules
//	hairpin.go       hairpinning, and the filter of neighbours
//	learned.go       the deletion of learned mappings, and their number
//	staticmap.go     static mappings: their maps and rules
//	staticelements.go  their elements, which go with the entry of their inside address
//	pcp.go           whose requests of PCP reach the machine
//	pins.go          inside ports that keep their block, and remote endpoints that get a part of one
//	timeouts.go      idle timeouts of flows: policies
//	timeouttable.go  which flow gets which policy
//	drops.go         counters of dropped packets, by reason and direction
//	routes.go        blackhole routes
//	sessions.go      sessions: lists, counts, reaping with proof
//	bounds.go        subscribers with too many sessions; the fill of the conntrack table
//	limits.go        limits of subscribers, as chains and sets
//	limitkeeper.go   the subscribers at their limits: programmed, told, forgotten
//	strays.go        flows that others translated, or that began while nothing translated
//	flowtables.go    flowtables of others
//	fastpath.go      the flowtable of the table, and what one changes
//	rereader.go      what reads all rules again
//	quiet.go         rules that make conntrack leave events out
//	helpers.go       conntrack helpers of others
//	others.go        tables of others as data, and a start to find what the kernel lacks
//	surroundings.go  the host: interfaces, forwarding, kernel modules
package nftnat
