package session

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkNASRestart measures the time from an Accounting-Off of all
// subscribers until nothing is left: Redis with an append-only file, the feed,
// the engine and all executors, on the kernel's in-memory twin. No removal may
// be suspended. The processor times of Redis and of this process tell more than
// the elapsed time on a busy machine.
func BenchmarkNASRestart(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var spent cost
			for b.Loop() {
				spent = restartOfAll(b, n)
			}
			each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }
			b.ReportMetric(spent.took.Seconds(), "s")
			b.ReportMetric(each(spent.took), "us/subscriber")
			b.ReportMetric(each(spent.redis), "redis-cpu-us/subscriber")
			b.ReportMetric(each(spent.own), "own-cpu-us/subscriber")
		})
	}
}

// cost is elapsed time, and processor time.
type cost struct{ took, redis, own time.Duration }

func restartOfAll(b *testing.B, n int) cost {
	b.StopTimer()
	defer b.StartTimer()
	w := newMultitude(b, n)
	defer w.halt()
	before, began := w.spent(b), time.Now()
	w.endOfNAS()
	w.awaitNothingLeft()
	took, after := time.Since(began), w.spent(b)
	w.onlyRestarted(n)
	return cost{took, after.redis - before.redis, after.own - before.own}
}

// spent returns the processor time of Redis's main thread and of this process
// so far.
func (w *world) spent(b *testing.B) (c cost) {
	for line := range strings.Lines(w.client.Info(b.Context(), "cpu").Val()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user_main_thread" || name == "used_cpu_sys_main_thread" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			c.redis += time.Duration(seconds * float64(time.Second))
		}
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	c.own = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return c
}

// BenchmarkNASRestartUnread runs the tests of a follower that is away, stalled
// or killed with as many subscribers as an operator has.
func BenchmarkNASRestartUnread(b *testing.B) {
	for name, body := range unreadRestarts {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				body(b, 100_000)
			}
		})
	}
}
