package conntrack

import "sync/atomic"

type counter = atomic.Uint64

// Stats are gauges, and counters since Open.
type Stats struct {
	Flows     int    // entries indexed
	Addresses int    // inside addresses that have entries
	Events    uint64 // begins and ends of entries, of any address
	Overruns  uint64 // times the kernel dropped events for want of buffer
	Rebuilds  uint64 // rebuilds of the index from a dump, the first included
	Missed    uint64 // entries that a complete index lacked, found by an audit
	Stale     uint64 // entries that it had although they had ended, found by an audit
	Passes    uint64 // table passes made to prove that deletes left nothing
}

// Stats returns the present numbers.
func (t *Table) Stats() Stats {
	flows, addresses := t.index.totals()
	wrong := t.index.errors()
	return Stats{
		Flows: flows, Addresses: addresses,
		Events:   t.listener.events.Load(),
		Overruns: t.listener.overruns.Load(),
		Rebuilds: t.rebuilds.Load(),
		Missed:   wrong.missed,
		Stale:    wrong.stale,
		Passes:   t.prover.passes.Load(),
	}
}
