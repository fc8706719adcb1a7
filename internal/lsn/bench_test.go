package lsn

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// crowd is an engine with n live bindings and room for as many more.
func crowd(tb testing.TB, n int, hold time.Duration) (*Engine, []Holder) {
	tb.Helper()
	e, err := New([]GroupConfig{{
		Name: "default", Inside: prefixes("10.0.0.0/8"), Outside: prefixes("198.18.0.0/15"),
		FirstPort: 1024, LastPort: 65535, BlockSize: 2048, Hold: hold,
	}})
	if err != nil {
		tb.Fatal(err)
	}
	holders := make([]Holder, n)
	for i := range holders {
		holders[i] = Holder{Inside: address(10<<24 + uint32(i)), Identity: fmt.Sprintf("u:%d", i), AcctSessionID: "a"}
		if _, err := e.Allocate("default", holders[i], time.Unix(0, 0)); err != nil {
			tb.Fatal(err)
		}
	}
	return e, holders
}

// cycle ends the binding of a subscriber and lets it, or another one at the
// address, have a block again.
func cycle(e *Engine, h Holder, now time.Time, buf []Binding) error {
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

// BenchmarkAllocateRelease measures a whole life: Cut, Hold, Advance, Allocate.
// Addresses come in no order the caches like, and as many blocks are held as live.
func BenchmarkAllocateRelease(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) { benchmarkCycle(b, n, "") })
	}
}

// BenchmarkReclaim is the same with everybody getting the own block back.
func BenchmarkReclaim(b *testing.B) {
	b.Run("bindings=1000000", func(b *testing.B) { benchmarkCycle(b, 1_000_000, "u:same") })
}

func benchmarkCycle(b *testing.B, n int, identity string) {
	e, _ := crowd(b, n, 100*time.Second)
	buf := make([]Binding, 0, 64)
	now := time.Unix(0, 0)
	one := func(i int) {
		h := Holder{Inside: address(10<<24 + uint32(i*7919%n)), Identity: identity}
		now = now.Add(100 * time.Second / time.Duration(n)) // as many held as live
		if err := cycle(e, h, now, buf); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 2*n + 100 { // warm: every slice has its size
		one(i)
	}
	runtime.GC()
	b.ReportAllocs()
	began := cpuTime(b)
	for i := 0; b.Loop(); i++ {
		one(i)
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op") // tells more on a busy machine
}

// cpuTime is the time that the process has computed.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRestore measures start-up, per binding.
func BenchmarkRestore(b *testing.B) {
	const n = 10_000
	from, _ := crowd(b, n, time.Minute)
	var all []Binding
	from.Bindings("default", func(x Binding) bool { all = append(all, x); return true })
	b.ReportAllocs()
	for b.Loop() {
		e, _ := crowd(b, 0, time.Minute)
		for _, x := range all {
			if err := e.Restore(x); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/binding")
}

// BenchmarkMemory reports the bytes that one binding costs.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	var before, after runtime.MemStats
	for b.Loop() {
		holders := make([]netip.Addr, n)
		for i := range holders {
			holders[i] = address(10<<24 + uint32(i))
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		e, _ := crowd(b, 0, 0)
		for _, a := range holders {
			if _, err := e.Allocate("default", Holder{Inside: a, Identity: "u:a"}, time.Unix(0, 0)); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(e)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/binding")
}

// TestSteadyStateDoesNotAllocate holds the promise of the benchmark.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	e, holders := crowd(t, 10_000, time.Minute)
	now, buf, i := time.Unix(0, 0), make([]Binding, 0, 64), 0
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
