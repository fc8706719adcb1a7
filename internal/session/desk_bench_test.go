package session

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// busyKernel has four sessions of each subscriber, as the index of sessions yields them.
type busyKernel struct {
	backendKernel
	counts []conntrack.AddressCount
}

func (k *busyKernel) AddressCounts(yield func([]conntrack.AddressCount)) {
	for some := range k.counts {
		if some%4096 == 0 {
			yield(k.counts[some:min(some+4096, len(k.counts))])
		}
	}
}

// BenchmarkTop measures a look at all subscribers by each measure but ports, whose look
// conntrack.BenchmarkPortUses measures, without that at the index itself (BenchmarkAddressCounts).
func BenchmarkTop(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		l := newCrowdedLife(b, n)
		kernel := &busyKernel{backendKernel: l.Manager.desk.kernel}
		for i := range n {
			kernel.counts = append(kernel.counts, conntrack.AddressCount{Inside: l.key(i).Inside, Entries: i * 7919 % 1000, Begun: uint32(i)})
		}
		l.Manager.desk.kernel = kernel
		for name, q := range map[string]inspect.TopQuery{
			"sessions":         {By: inspect.TopSessions, Limit: 20},
			"sessions-of-pool": {By: inspect.TopSessions, Limit: 20, Outside: netip.MustParsePrefix("198.18.1.7/32")},
			"rate":             {By: inspect.TopNewSessions, Limit: 20, Window: time.Nanosecond},
			"octets":           {By: inspect.TopOctets, Limit: 20},
		} {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				for b.Loop() {
					if _, err := l.Manager.desk.Top(b.Context(), q); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkEndings measures noting an ending, the memory of each, and a search through all.
func BenchmarkEndings(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l := newEndingLog(endingsMost, time.Unix(0, 0))
	add := func(i int) {
		r := subscriber.Record{
			Key: subscriber.Key{Group: "default", Inside: netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})}, UserName: fmt.Sprintf("user-%d@example.net", i),
			SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng1.example", AcctSessionID: fmt.Sprintf("%016X", i)}, CallingStationID: "02-00-5E-00-00-07", StartedAt: time.Unix(int64(i), 0),
		}
		packed := r.Pack()
		binding := nat.Binding{Receipt: &nat.Receipt{Deleted: i}}
		at := time.Unix(int64(i), 0)
		l.ended(&packed, subscriber.End{Reason: subscriber.ReasonStop}, at, &binding)
		l.reaped(&packed, subscriber.End{Reason: subscriber.ReasonStop}, at, &binding)
	}
	for i := range 2 * endingsMost {
		add(i)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Run("note", func(b *testing.B) {
		for i := 2 * endingsMost; b.Loop(); i++ {
			add(i)
		}
	})
	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			if p := l.page(&inspect.EndingFilter{UserName: "nobody"}, 0, 1); len(p.List) > 0 {
				b.Fatal(p.List)
			}
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/endingsMost, "B/ending")
	})
}
