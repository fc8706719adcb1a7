package conntrack_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// crowd returns n entries, a hundred for each subscriber from inside(1) on.
func crowd(n int) []conntrack.Entry {
	var entries []conntrack.Entry
	for i := range n / 100 {
		public := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		entries = append(entries, conntracktest.Many(inside(i+1), public, 100)...)
	}
	return entries
}

var sizes = []int{10_000, 100_000, 500_000}

// roomy returns a lab with a table of size entries.
func roomy(b *testing.B, size int) *lab {
	testenv.Require(b, testenv.Root|testenv.Conntrack)
	conntracktest.Room(b, 2*size)
	return newLab(b, crowd(size)...)
}

// BenchmarkDeleteOne deletes the 100 sessions of one subscriber, and reports how many times
// longer `conntrack -D -s` takes for the same in the same table: its best of three against
// our median.
func BenchmarkDeleteOne(b *testing.B) {
	for _, size := range sizes {
		for _, way := range []string{"flush", "proven"} {
			b.Run(fmt.Sprintf("%s/entries=%d", way, size), func(b *testing.B) {
				l := roomy(b, size)
				victim := conntracktest.Many(inside(60000), outside, 100)
				var ours []time.Duration
				for b.Loop() {
					b.StopTimer()
					l.inject(b, victim...)
					l.waitCount(b, inside(60000), 100)
					b.StartTimer()
					began := time.Now()
					erase(b, l.table, way, inside(60000))
					ours = append(ours, time.Since(began))
				}
				slices.Sort(ours)
				median := ours[len(ours)/2]
				b.ReportMetric(median.Seconds()*1e3, "ms-median")
				b.ReportMetric(peerDelete(b, l, victim).Seconds()/median.Seconds(), "x-conntrack-D")
			})
		}
	}
}

func erase(b *testing.B, table *conntrack.Table, way string, addr netip.Addr) {
	if way == "flush" {
		if got, err := table.Flush(b.Context(), []netip.Addr{addr}); err != nil || got[addr] != 100 {
			b.Fatal(got, err)
		}
		return
	}
	got, err := table.Delete(b.Context(), []netip.Addr{addr})
	if err != nil || got[addr].Deleted != 100 || got[addr].Proof != nat.ProofIndex {
		b.Fatal(got, err)
	}
}

// peerDelete returns the best of three runs of conntrack(8), less the start of a process.
func peerDelete(b *testing.B, l *lab, victim []conntrack.Entry) time.Duration {
	best := time.Hour
	for range 3 {
		l.inject(b, victim...)
		took := timed(b, "ip", "netns", "exec", l.name, "conntrack", "-D", "-s", inside(60000).String())
		idle := timed(b, "ip", "netns", "exec", l.name, "conntrack", "-C")
		best = min(best, took-idle)
	}
	return best
}

func timed(b *testing.B, command ...string) time.Duration {
	began := time.Now()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		b.Fatalf("%v: %v: %.200s", command, err, out)
	}
	return time.Since(began)
}

// BenchmarkTablePass measures one pass: one dump, filtered as it comes.
func BenchmarkTablePass(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) {
			l := roomy(b, size)
			for b.Loop() {
				if err := l.table.Walk(b.Context(), inside(60000)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkArrivals begins sessions as fast as the kernel makes them, and reports the
// events lost, and the time from the last session until the index knew all.
func BenchmarkArrivals(b *testing.B) {
	const size = 200_000
	testenv.Require(b, testenv.Root|testenv.Conntrack)
	entries := crowd(size)
	var making, behind time.Duration
	lost := uint64(0)
	for b.Loop() {
		l := newLab(b)
		send := conntracktest.Prepare(b, l.path, entries)
		began := time.Now()
		send()
		making += time.Since(began)
		made := time.Now()
		testenv.Succeeds(b, func() error {
			if n := l.table.Total(); n != size {
				return fmt.Errorf("%d entries", n)
			}
			return nil
		})
		behind += time.Since(made)
		lost += l.table.Stats().Overruns
	}
	b.ReportMetric(size*float64(b.N)/making.Seconds(), "sessions/s")
	b.ReportMetric(float64(lost), "overruns")
	b.ReportMetric(float64(behind.Milliseconds())/float64(b.N), "ms-behind")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSessionLife measures the daemon's CPU time for one session in the index: to
// read, parse and apply its NEW and its DESTROY event.
func BenchmarkSessionLife(b *testing.B) {
	testenv.Require(b, testenv.Root|testenv.Conntrack)
	const batch = 50_000
	name, path := conntracktest.Namespace(b)
	table, err := conntrack.Open(conntrack.Options{NetNS: name, Inside: []netip.Prefix{insideNet}})
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	if err := table.Join(); err != nil {
		b.Fatal(err)
	}
	entries := crowd(batch)
	var spent time.Duration
	for b.Loop() {
		conntracktest.Inject(b, path, entries)
		spent += cpu(b, func() { drain(b, table, batch) })
		conntracktest.In(b, name, "conntrack", "-F")
		spent += cpu(b, func() { drain(b, table, batch) })
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/batch, "cpu-ns/session")
	b.ReportMetric(0, "ns/op")
}

// cpu returns the CPU time that fn takes on its thread.
func cpu(b *testing.B, fn func()) time.Duration {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	clock := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			b.Fatal(err)
		}
		return time.Duration(ts.Nano())
	}
	began := clock()
	fn()
	return clock() - began
}

func drain(b *testing.B, table *conntrack.Table, want int) {
	if n, err := table.Drain(); n != want || err != nil {
		b.Fatalf("%d events, %v; want %d", n, err, want)
	}
}

// BenchmarkDeleteMany deletes the sessions of half of a table's subscribers in one call, as
// after the restart of a BNG, with proof, and checks that the others kept all of theirs.
func BenchmarkDeleteMany(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) {
			l := roomy(b, size)
			var victims []netip.Addr
			for i := range size / 200 {
				victims = append(victims, inside(i+1))
			}
			for b.Loop() {
				got, err := l.table.Delete(b.Context(), victims)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				l.wantHalf(b, got, size)
				l.inject(b, crowd(size/2)...)
				l.waitCount(b, victims[len(victims)-1], 100)
				b.StartTimer()
			}
			teardown := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(teardown, "s/teardown")
			b.ReportMetric(1e6*teardown/float64(size/2), "us/entry")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// wantHalf checks the outcomes, and asks the kernel for the remaining entries of the
// victims and of the others.
func (l *lab) wantHalf(b *testing.B, got map[netip.Addr]conntrack.Outcome, size int) {
	b.Helper()
	for addr, o := range got {
		if o.Deleted != 100 || o.Proof != nat.ProofIndex {
			b.Fatalf("%v: %+v", addr, o)
		}
	}
	others := 0
	err := l.table.Dump(b.Context(), func(e conntrack.Entry) error {
		if _, victim := got[e.Orig.Src]; victim {
			return fmt.Errorf("left: %s", conntracktest.String(e))
		}
		others++
		return nil
	})
	if err != nil || others != size/2 {
		b.Fatalf("%d entries of others, want %d: %v", others, size/2, err)
	}
}
