package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A report counts the rounds, faults and operations of all worlds.
type report struct {
	mu     sync.Mutex
	faults map[string]int
	ops    map[string]int
	settle map[string]time.Duration // the longest, by fault

	rounds, looks, flows, moves atomic.Int64

	several  atomic.Int64 // rounds at whose end a binding had several blocks
	limited  atomic.Int64 // probes of subscribers at a limit
	refusals atomic.Int64 // of removals of a pool in use
	receipts atomic.Int64 // checked
	visits   atomic.Int64 // probes of mappings
}

func newReport() *report {
	return &report{faults: map[string]int{}, ops: map[string]int{}, settle: map[string]time.Duration{}}
}

// add counts one round, with its time from the last repair to rest.
func (r *report) add(faults []fault, ops []op, settled time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rounds.Add(1)
	for _, f := range faults {
		r.faults[f.name]++
		r.settle[f.name] = max(r.settle[f.name], settled)
	}
	for _, o := range ops {
		r.ops[string(o.kind)]++
	}
}

func (r *report) total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.faults {
		n += c
	}
	return n
}

func (r *report) String() string {
	n := r.total()
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults in %d rounds, %d looks, %d probes of flows, %d blocks seen to change hands\n",
		n, r.rounds.Load(), r.looks.Load(), r.flows.Load(), r.moves.Load())
	fmt.Fprintf(&b, "%d rounds end with several blocks of one, %d probes at limits, %d removals of pools refused, %d receipts counted, %d probes of mappings\n",
		r.several.Load(), r.limited.Load(), r.refusals.Load(), r.receipts.Load(), r.visits.Load())
	fmt.Fprintf(&b, "%-40s %6s  %s\n", "fault", "times", "longest until at rest")
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		fmt.Fprintf(&b, "%-40s %6d  %v\n", name, r.faults[name], r.settle[name].Round(10*time.Millisecond))
	}
	fmt.Fprintf(&b, "%-40s %6s\n", "operation", "times")
	for _, kind := range slices.Sorted(maps.Keys(r.ops)) {
		fmt.Fprintf(&b, "%-40s %6d\n", kind, r.ops[kind])
	}
	return b.String()
}
