package conntrack

import "sync/atomic"

type counter = atomic.Uint64

// Stats are gauges, and counters since Open.
type Stats struct {
	Flows     int    // entries indexed
	Addresses int    // inside addresses that have any
	Events    uint64 // entries seen to begin or to end, of any address
	Overruns  uint64 // times the kernel dropped events for want of buffer
	Rebuilds  uint64 // rebuilds of the index from a dump, the first included
	Mended    uint64 // entries a rebuild added or removed before an event told
	Passes    uint64 // table passes made to prove that deletes left nothing
}

// Stats returns the present numbers.
func (t *Table) Stats() Stats {
	flows, addresses := t.index.totals()
	return Stats{
		Flows: flows, Addresses: addresses,
		Events:   t.listener.events.Load(),
		Overruns: t.listener.overruns.Load(),
		Rebuilds: t.rebuilds.Load(),
		Mended:   t.index.mended(),
		Passes:   t.prover.passes.Load(),
	}
}
