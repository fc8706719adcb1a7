package session

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/pcp"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// BenchmarkAsks measures 10,000 requests a second by PCP of 1,000 clients, stored in a real Redis and
// programmed in the kernel's twin: of 16 requests of a client 14 are renewals, one makes a mapping, one
// deletes it. One operation is one request, from the time at which it is due. At most 64 wait at a
// time, as in the server.
func BenchmarkAsks(b *testing.B) {
	const clients, workers, rate = 1000, 64, 10_000
	g := askedGroup()
	g.BlockSize, g.LastPort, g.Static.First, g.Static.Last = 256, 32767, 40000, 59999
	w := newWorld(b, g)
	for i := range clients {
		w.send(subscriber.EventStart, asker(i), fmt.Sprint("u", i), fmt.Sprint("s", i))
	}
	for i := range clients {
		w.awaitState(asker(i), nat.Active)
		w.asked(asking(asker(i), 1))
	}
	var next atomic.Int64
	var all sync.WaitGroup
	took := make([][]time.Duration, workers)
	b.ResetTimer()
	start := time.Now()
	for worker := range workers {
		all.Go(func() {
			for n := next.Add(1) - 1; n < int64(b.N); n = next.Add(1) - 1 {
				inside := asker(int(n) % clients)
				due := start.Add(time.Duration(n) * time.Second / rate)
				time.Sleep(time.Until(due))
				var err error
				switch n / clients % 16 {
				case 0:
					_, err = w.PCP().Map(context.Background(), asking(inside, 2))
				case 8:
					err = w.PCP().Unmap(context.Background(), pcp.UnmapRequest{Inside: netip.AddrPortFrom(inside, 2), Protocol: nat.ProtocolUDP})
				default:
					_, err = w.PCP().Map(context.Background(), asking(inside, 1))
				}
				if err != nil {
					b.Error(err)
					return
				}
				took[worker] = append(took[worker], time.Since(due))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	list := slices.Concat(took...)
	slices.Sort(list)
	b.ReportMetric(float64(list[len(list)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(list[len(list)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

func asker(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}) }
