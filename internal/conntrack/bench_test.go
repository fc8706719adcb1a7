package conntrack_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// crowd is n entries, a hundred for each subscriber from inside(1) on.
func crowd(n int) []conntrack.Entry {
	var entries []conntrack.Entry
	for i := range n / 100 {
		public := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		entries = append(entries, conntracktest.Many(inside(i+1), public, 100)...)
	}
	return entries
}

var sizes = []int{10_000, 100_000}

// BenchmarkDeleteOne ends one subscriber with 100 sessions, and reports how
// many times longer `conntrack -D -s` takes for the same in the same table.
func BenchmarkDeleteOne(b *testing.B) {
	for _, size := range sizes {
		for _, way := range []string{"flush", "proven"} {
			b.Run(fmt.Sprintf("%s/entries=%d", way, size), func(b *testing.B) {
				l := newLab(b, crowd(size)...)
				victim := conntracktest.Many(inside(60000), outside, 100)
				var ours time.Duration
				for b.Loop() {
					b.StopTimer()
					l.inject(b, victim...)
					l.waitCount(b, inside(60000), 100)
					b.StartTimer()
					began := time.Now()
					erase(b, l.table, way, inside(60000))
					ours += time.Since(began)
				}
				peer := peerDelete(b, l, victim)
				b.ReportMetric(peer.Seconds()*float64(b.N)/ours.Seconds(), "x-conntrack-D")
			})
		}
	}
}

func erase(b *testing.B, table *conntrack.Table, way string, addr netip.Addr) {
	do := table.Delete
	if way == "flush" {
		do = table.Flush
	}
	got, err := do(b.Context(), []netip.Addr{addr})
	if err != nil || got[addr] != 100 {
		b.Fatal(got, err)
	}
}

// peerDelete is the best of three runs, less what starting a process costs.
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

// BenchmarkTablePass is the proof of zero: one dump, filtered as it comes.
func BenchmarkTablePass(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) {
			l := newLab(b, crowd(size)...)
			for b.Loop() {
				if err := l.table.Walk(b.Context(), inside(60000)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSessionLife is what one session costs the index: fetching, parsing
// and applying its NEW and its DESTROY event.
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
	for b.Loop() {
		b.StopTimer()
		conntracktest.Inject(b, path, entries)
		b.StartTimer()
		drain(b, table, batch)
		b.StopTimer()
		conntracktest.In(b, name, "conntrack", "-F")
		b.StartTimer()
		drain(b, table, batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/session")
	b.ReportMetric(0, "ns/op")
}

func drain(b *testing.B, table *conntrack.Table, want int) {
	if n, err := table.Drain(); n != want || err != nil {
		b.Fatalf("%d events, %v; want %d", n, err, want)
	}
}

// BenchmarkDeleteMany ends half of the subscribers of a table in one call, as
// the restart of a BNG does, proof included.
func BenchmarkDeleteMany(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) {
			l := newLab(b, crowd(size)...)
			var victims []netip.Addr
			for i := range size / 200 {
				victims = append(victims, inside(i+1))
			}
			for b.Loop() {
				if _, err := l.table.Delete(b.Context(), victims); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				l.inject(b, crowd(size/2)...)
				l.waitCount(b, victims[len(victims)-1], 100)
				b.StartTimer()
			}
			perEntry := b.Elapsed().Seconds() / float64(b.N) / float64(size/2)
			b.ReportMetric(1/perEntry, "entries/s")
		})
	}
}
