package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGarbagePercent(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name       string
		live, rate uint64
		want       int
	}{
		{"just started", 0, 0, 800},
		{"few subscribers at rest", 20 * mib, 0, 160},
		{"few subscribers under load", 20 * mib, 200 * mib, 640},
		{"many at rest", 50 * mib, mib, 64},
		{"many under some load", 100 * mib, 40 * mib, 80},
		{"many under load", 200 * mib, 900 * mib, 100},
		{"very many at rest", 600 * mib, mib, 50},
		{"very many under some load", 600 * mib, 60 * mib, 80},
		{"very many under load", 600 * mib, 900 * mib, 100},
	} {
		if got := garbagePercent(c.live, c.rate); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// collectorPercent returns the percentage without changing it.
func collectorPercent() int {
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	return percent
}

func TestGCTunerFollowsTheHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	g := newGCTuner(nil)
	g.set()
	small := collectorPercent()
	ballast := make([]byte, 64<<20)
	g.listen()
	runtime.GC()
	<-g.collected
	g.set()
	if large := collectorPercent(); large >= small {
		t.Errorf("the collector allows %d %% of a small heap and %d %% of a large one", small, large)
	}
	runtime.KeepAlive(ballast)
}

// TestGarbageOfAStartGoes: the garbage of the start is collected once, when the
// start is over.
func TestGarbageOfAStartGoes(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	collections := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
	forced := func() uint64 {
		metrics.Read(collections)
		return collections[0].Value.Uint64()
	}
	ready, before := make(chan struct{}), forced()
	close(ready)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- newGCTuner(ready).run(ctx) }()
	for forced() == before {
		if ctx.Err() != nil {
			t.Fatal("nothing is collected")
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-ended; err != nil || forced() != before+1 {
		t.Errorf("%d collections, %v", forced()-before, err)
	}
}

func TestGCTunerLeavesItToTheOperator(t *testing.T) {
	t.Setenv("GOGC", "300")
	before := collectorPercent()
	if err := newGCTuner(nil).run(context.Background()); err != nil || collectorPercent() != before {
		t.Errorf("run returned %v and left %d, want %d", err, collectorPercent(), before)
	}
}
