package session

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/reconcile"
)

// BenchmarkStart is how long a start takes that finds so many subscribers in database
// and kernel, and BenchmarkLooks what looks for differences cost afterwards: Redis with
// an append-only file, over the kernel's twin. What processors did for it, Redis's and
// ours, tells more than the time on a machine that has other work.
func BenchmarkStart(b *testing.B) {
	atScale(b, func(b *testing.B, w *world) {
		w.halt()
		w.Manager = nil
		w.measure(b, "start", func() { w.boot() })
		w.heap(b, "start")
	})
}

// BenchmarkLooks is what the looks for differences cost where there are none.
func BenchmarkLooks(b *testing.B) {
	atScale(b, func(b *testing.B, w *world) {
		w.measure(b, "presence", func() {
			if _, err := w.Manager.reconciler.Compare(b.Context(), reconcile.Comparison{Part: reconcile.Presence}); err != nil {
				b.Fatal(err)
			}
		})
		w.measure(b, "everything", func() {
			if drifts, err := w.Manager.reconciler.Compare(b.Context(), reconcile.Comparison{}); err != nil || len(drifts) > 0 {
				b.Fatal(len(drifts), err)
			}
		})
	})
}

func atScale(b *testing.B, body func(*testing.B, *world)) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newMultitude(b, n)
			defer w.halt()
			for range b.N {
				body(b, w)
			}
		})
	}
}

// measure reports what passed while do did something, and what processors spent.
func (w *world) measure(b *testing.B, what string, do func()) {
	before, began := w.spent(b), time.Now()
	do()
	took, after := time.Since(began), w.spent(b)
	b.ReportMetric(took.Seconds(), what+"-s")
	b.ReportMetric((after.redis - before.redis).Seconds(), what+"-redis-cpu-s")
	b.ReportMetric((after.own - before.own).Seconds(), what+"-own-cpu-s")
}

// heap reports what is live, for each subscriber, the twin's part included.
func (w *world) heap(b *testing.B, what string) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/float64(w.opened()), what+"-B/subscriber")
}
