package lsn

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// crowd returns an engine with n live bindings and room for at least as many others as
// given by more, in the smallest pool of one prefix that has it.
func crowd(tb testing.TB, n, more int, hold time.Duration) (*Engine, []nat.Holder) {
	tb.Helper()
	addresses := (n + more + 30) / 31 // 31 blocks each
	outside := netip.PrefixFrom(addrrange.Address(100<<24), 32-bits.Len(uint(addresses-1)))
	e, err := New([]GroupConfig{{
		Name: "default", Inside: prefixes("10.0.0.0/8"), Outside: []netip.Prefix{outside},
		FirstPort: 1024, LastPort: 65535, BlockSize: 2048, Hold: hold,
	}})
	if err != nil {
		tb.Fatal(err)
	}
	holders := make([]nat.Holder, n)
	for i := range holders {
		holders[i] = nat.Holder{Inside: addrrange.Address(10<<24 + uint32(i)), Identity: fmt.Sprintf("u:%d", i), AcctSessionID: "a"}
		if _, err := e.Allocate("default", holders[i], time.Unix(0, 0)); err != nil {
			tb.Fatal(err)
		}
	}
	return e, holders
}

// cycle ends a subscriber's binding and allocates again, for the same subscriber or another
// one at the address.
func cycle(e *Engine, h nat.Holder, now time.Time, buf []nat.Binding) error {
	if _, err := e.Cut("default", h.Inside, now); err != nil {
		return err
	}
	if _, err := e.Hold("default", h.Inside, now); err != nil {
		return err
	}
	e.Advance(now, buf[:0], nil)
	_, err := e.Allocate("default", h, now)
	return err
}

// BenchmarkAllocateRelease measures the whole life of a binding: Allocate, Cut, Hold and,
// after as many others as the hold lasts, Advance. The addresses are random, so that little
// of their data is in the caches, and every block was given before. held bindings are in
// quarantine all the time: usually few; as many as are live after all subscribers have
// logged in again.
func BenchmarkAllocateRelease(b *testing.B) {
	for _, size := range []struct{ live, held int }{
		{1_000, 1_000}, {100_000, 100_000}, {1_000_000, 10_000}, {1_000_000, 1_000_000},
	} {
		b.Run(fmt.Sprintf("live=%d/held=%d", size.live, size.held), func(b *testing.B) {
			benchmarkCycle(b, size.live, size.held, "")
		})
	}
}

// BenchmarkReclaim measures the same with every subscriber getting its own block back.
func BenchmarkReclaim(b *testing.B) {
	b.Run("live=1000000", func(b *testing.B) { benchmarkCycle(b, 1_000_000, 10_000, "u:same") })
}

// benchmarkCycle runs cycles in a steady state: in each step one hold begins and one ends.
func benchmarkCycle(b *testing.B, live, held int, identity string) {
	const step = time.Millisecond
	e, _ := crowd(b, live, held+1, time.Duration(held)*step)
	random := rand.New(rand.NewPCG(1, 2))
	now, buf := time.Unix(0, 0), make([]nat.Binding, 0, 64)
	one := func() {
		h := nat.Holder{Inside: addrrange.Address(10<<24 + random.Uint32N(uint32(live))), Identity: identity}
		now = now.Add(step)
		if err := cycle(e, h, now, buf); err != nil {
			b.Fatal(err)
		}
	}
	blocks := e.Usage()[0].Total
	for range blocks + held { // until every block was given and every slice has its size
		one()
	}
	runtime.GC()
	b.ReportAllocs()
	began := cpuTime(b)
	for b.Loop() {
		one()
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op") // more exact on a busy machine
}

// cpuTime returns the CPU time of the process.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRestore measures start-up, per binding: every second one is held, and their
// order is random.
func BenchmarkRestore(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) { benchmarkRestore(b, n) })
	}
}

func benchmarkRestore(b *testing.B, n int) {
	from, holders := crowd(b, n, 0, time.Minute)
	for i := 0; i < n; i += 2 {
		at := time.Unix(int64(i), 0)
		if err := errors.Join(second(from.Cut("default", holders[i].Inside, at)), second(from.Hold("default", holders[i].Inside, at))); err != nil {
			b.Fatal(err)
		}
	}
	var all []nat.Binding
	from.Bindings("default", func(x nat.Binding) bool { all = append(all, x); return true })
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime(b)
	for range b.N {
		e, _ := crowd(b, 0, n, time.Minute)
		for i := range all {
			if err := e.Restore(all[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N)/float64(n), "cpu-ns/binding")
}

// second returns the error of a call whose binding is not needed.
func second(_ nat.Binding, err error) error { return err }

// BenchmarkHoldAll ends every binding, as the restart of a NAS does. It measures the time
// and allocated memory of each, and the longest one, because it delays all others
// meanwhile.
func BenchmarkHoldAll(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var longest time.Duration
			for b.Loop() {
				b.StopTimer()
				e, holders := crowd(b, n, 0, time.Hour)
				b.StartTimer()
				for i := range holders {
					began := time.Now()
					if _, err := e.Cut("default", holders[i].Inside, time.Unix(0, 0)); err != nil {
						b.Fatal(err)
					}
					if _, err := e.Hold("default", holders[i].Inside, time.Unix(0, 0)); err != nil {
						b.Fatal(err)
					}
					longest = max(longest, time.Since(began))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/binding")
			b.ReportMetric(float64(longest.Microseconds()), "longest-us")
		})
	}
}

// BenchmarkMemory reports the octets of memory per binding.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	var before, after runtime.MemStats
	for b.Loop() {
		holders := make([]netip.Addr, n)
		for i := range holders {
			holders[i] = addrrange.Address(10<<24 + uint32(i))
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		e, _ := crowd(b, 0, n, 0)
		for _, a := range holders {
			if _, err := e.Allocate("default", nat.Holder{Inside: a, Identity: "u:a"}, time.Unix(0, 0)); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(e)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/binding")
}

// TestSteadyStateDoesNotAllocate checks that the benchmark's cycle allocates nothing.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	e, holders := crowd(t, 10_000, 10_000, time.Minute)
	now, buf, i := time.Unix(0, 0), make([]nat.Binding, 0, 64), 0
	one := func() {
		h := holders[i%len(holders)]
		h.Identity = []string{"u:x", "u:y", h.Identity}[i/3%3]
		i++
		now = now.Add(10 * time.Millisecond)
		if err := cycle(e, h, now, buf); err != nil {
			t.Fatal(err)
		}
		e.Next()
		e.Live("default", h.Inside)
	}
	for range 50_000 {
		one()
	}
	if n := testing.AllocsPerRun(20_000, one); n != 0 {
		t.Errorf("%v allocations per cycle", n)
	}
}
