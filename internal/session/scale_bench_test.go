package session

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/reconcile"
)

// BenchmarkStart measures a start that finds so many subscribers in database
// and kernel: Redis with an append-only file, on the kernel's in-memory twin.
// The processor times of Redis and of this process tell more than the elapsed
// time on a busy machine.
func BenchmarkStart(b *testing.B) {
	atScale(b, func(b *testing.B, w *world) {
		w.halt()
		w.Manager = nil
		w.measure(b, "start", func() { w.boot() })
		w.heap(b, "start")
	})
}

// BenchmarkLooks measures the looks for differences where there are none.
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

// measure reports the elapsed time and the processor time of do.
func (w *world) measure(b *testing.B, what string, do func()) {
	before, began := w.spent(b), time.Now()
	do()
	took, after := time.Since(began), w.spent(b)
	b.ReportMetric(took.Seconds(), what+"-s")
	b.ReportMetric((after.redis - before.redis).Seconds(), what+"-redis-cpu-s")
	b.ReportMetric((after.own - before.own).Seconds(), what+"-own-cpu-s")
}

// heap reports the live memory for each subscriber, including the twin's.
func (w *world) heap(b *testing.B, what string) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/float64(w.opened()), what+"-B/subscriber")
}
