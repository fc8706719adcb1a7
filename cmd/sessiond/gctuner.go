package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage may lie around before it is collected, besides what is in use.
//
// Go's own rule, as much as is in use, suits neither end: a daemon of few
// subscribers collects many times a second under load, and one of many keeps
// twice its memory when nothing happens. So it goes by work: what is made in
// garbageTime, within bounds. Under load a collection, which costs in proportion
// to what is in use and has the slowest answers wait for it, then comes about every
// other second; at rest the memory of a morning's reconnects goes back to the
// system. Of very many subscribers a collection takes a second and more: so the time,
// and what lies around at rest, grow with what is in use, or a start with a million of
// them would spend two thirds of its processor time on collections.
const (
	garbageTime  = 2 * time.Second
	garbagePace  = 75 << 20    // octets in use for which there is another second
	garbageLook  = time.Second // how often the work is measured
	garbageLeast = 32 << 20    // octets; at rest
	garbageShare = 2           // or this part of what is in use, at rest
	garbageMost  = 128 << 20   // octets; or as much as is in use
)

// garbagePercent is the setting of the collector for a heap of live octets, to
// which rate octets a second are added.
func garbagePercent(live, rate uint64) int {
	span := max(garbageTime, time.Duration(live)*time.Second/garbagePace)
	allowed := uint64(float64(rate) * span.Seconds())
	allowed = max(garbageLeast, live/garbageShare, min(allowed, max(garbageMost, live)))
	return int(allowed * 100 / max(live, 4<<20)) // 4 MiB count as in use in any case
}

// A gcTuner keeps the collector's setting in step with what it says of the
// heap.
type gcTuner struct {
	ready     <-chan struct{} // closed at the end of the start
	collected chan struct{}   // after a collection
	samples   []metrics.Sample
	at        time.Time
	made      uint64 // octets, until at
	rate      uint64 // octets a second, before at
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

// run works until ctx ends. It leaves everything to an operator who sets GOGC or
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
		case <-g.collected: // what is in use may have changed a lot
			g.listen()
		case <-g.ready:
			// What the start had to keep, as much as is in use, would lie around for minutes.
			g.ready = nil
			debug.FreeOSMemory()
		}
	}
}

// listen has the next collection tell of itself, by way of an object that it
// will find unused.
func (g *gcTuner) listen() {
	runtime.AddCleanup(new([64]byte), func(collected chan<- struct{}) {
		select {
		case collected <- struct{}{}:
		default:
		}
	}, g.collected)
}

// measure finds out how fast garbage is made.
func (g *gcTuner) measure(now time.Time) {
	metrics.Read(g.samples)
	made, seconds := g.samples[1].Value.Uint64(), now.Sub(g.at).Seconds()
	if seconds > 0 {
		g.rate = uint64(float64(made-g.made) / seconds)
	}
	g.made, g.at = made, now
}

// set changes the setting, which stops the program for some microseconds, if it
// is off by a tenth.
func (g *gcTuner) set() {
	metrics.Read(g.samples)
	percent := garbagePercent(g.samples[0].Value.Uint64(), g.rate)
	if off := percent - g.percent; 10*max(off, -off) < g.percent {
		return
	}
	g.percent = percent
	debug.SetGCPercent(percent)
}
