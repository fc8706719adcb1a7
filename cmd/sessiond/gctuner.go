package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Bounds of the garbage that accumulates before a collection, beside the live
// heap.
//
// Go's own rule, garbage up to the size of the live heap, suits neither end:
// with few subscribers the daemon collects many times a second under load, and
// with many it keeps twice its memory when idle. So the allowance follows the
// rate of allocation: the garbage of garbageTime, within bounds. A collection
// costs in proportion to the live heap, and the slowest answers wait for it.
// Under load it then comes about every other second; when idle, the memory of a
// morning's reconnects returns to the system. With very many subscribers a
// collection takes a second and more. So the time, and the allowance when idle,
// grow with the live heap; otherwise a start with a million subscribers would
// spend two thirds of its processor time on collections.
const (
	garbageTime  = 2 * time.Second
	garbagePace  = 75 << 20    // octets of live heap that add a second
	garbageLook  = time.Second // interval of measuring the rate
	garbageLeast = 32 << 20    // octets; when idle
	garbageShare = 2           // or this part of the live heap, when idle
	garbageMost  = 128 << 20   // octets; or the size of the live heap
)

// garbagePercent is the collector's percentage for a heap of live octets at an
// allocation rate in octets per second.
func garbagePercent(live, rate uint64) int {
	span := max(garbageTime, time.Duration(live)*time.Second/garbagePace)
	allowed := uint64(float64(rate) * span.Seconds())
	allowed = max(garbageLeast, live/garbageShare, min(allowed, max(garbageMost, live)))
	return int(allowed * 100 / max(live, 4<<20)) // 4 MiB count as live in any case
}

// A gcTuner adjusts the collector's percentage to the heap's measured size and
// rate.
type gcTuner struct {
	ready     <-chan struct{} // closed at the end of the start
	collected chan struct{}   // after a collection
	samples   []metrics.Sample
	at        time.Time
	made      uint64 // octets allocated until at
	rate      uint64 // octets per second, before at
	percent   int    // in force
}

func newGCTuner(ready <-chan struct{}) *gcTuner {
	g := &gcTuner{
		ready:     ready,
		collected: make(chan struct{}, 1),
		samples:   []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}},
		at:        time.Now(),
	}
	metrics.Read(g.samples)
	g.made = g.samples[1].Value.Uint64()
	return g
}

// run adjusts until ctx ends. It does nothing if the operator has set GOGC or
// GOMEMLIMIT.
func (g *gcTuner) run(ctx context.Context) error {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	tick := time.NewTicker(garbageLook)
	defer tick.Stop()
	g.listen()
	for {
		g.set()
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			g.measure(now)
		case <-g.collected: // the live heap may have changed much
			g.listen()
		case <-g.ready:
			// The garbage of the start, as large as the live heap, would otherwise stay for
			// minutes.
			g.ready = nil
			debug.FreeOSMemory()
		}
	}
}

// listen makes the next collection send on collected, by a cleanup of an
// unreachable object.
func (g *gcTuner) listen() {
	runtime.AddCleanup(new([64]byte), func(collected chan<- struct{}) {
		select {
		case collected <- struct{}{}:
		default:
		}
	}, g.collected)
}

// measure measures the rate of allocation.
func (g *gcTuner) measure(now time.Time) {
	metrics.Read(g.samples)
	made, seconds := g.samples[1].Value.Uint64(), now.Sub(g.at).Seconds()
	if seconds > 0 {
		g.rate = uint64(float64(made-g.made) / seconds)
	}
	g.made, g.at = made, now
}

// set changes the percentage if it is off by a tenth. A change stops the
// program for some microseconds.
func (g *gcTuner) set() {
	metrics.Read(g.samples)
	percent := garbagePercent(g.samples[0].Value.Uint64(), g.rate)
	if off := percent - g.percent; 10*max(off, -off) < g.percent {
		return
	}
	g.percent = percent
	debug.SetGCPercent(percent)
}
