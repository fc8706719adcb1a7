package session

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkNASRestart is how long an Accounting-Off of everybody takes until nothing
// is left: Redis with an append-only file, the feed, the engine and all executors,
// over the kernel's twin. No removal may be held.
func BenchmarkNASRestart(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var took time.Duration
			for b.Loop() {
				took = restartOfAll(b, n)
			}
			b.ReportMetric(took.Seconds(), "s")
			b.ReportMetric(float64(took.Microseconds())/float64(n), "us/subscriber")
		})
	}
}

func restartOfAll(b *testing.B, n int) time.Duration {
	b.StopTimer()
	defer b.StartTimer()
	w := newMultitude(b, n)
	defer w.halt()
	began := time.Now()
	w.endOfNAS()
	w.awaitNothingLeft()
	took := time.Since(began)
	w.onlyRestarted(n)
	return took
}

// BenchmarkNASRestartUnread does what the tests of a follower that is away, stalled or
// killed do, with as many subscribers as an operator has.
func BenchmarkNASRestartUnread(b *testing.B) {
	for name, body := range unreadRestarts {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				body(b, 100_000)
			}
		})
	}
}
