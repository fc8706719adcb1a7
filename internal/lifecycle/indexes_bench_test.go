package lifecycle

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// nth returns the inside address of subscriber i.
func nth(i int) netip.Addr {
	n := uint32(100<<24 | 64<<16 + i + 1)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// BenchmarkOnlineIndex measures adding and removing a record, and the memory
// for each subscriber.
func BenchmarkOnlineIndex(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			records := make([]subscriber.Packed, n)
			for i := range records {
				r := subscriber.Record{
					Key:       subscriber.Key{Group: "default", Inside: nth(i)},
					SessionID: subscriber.SessionID{Client: "bng1", NAS: fmt.Sprint("nas", i*7919%n/1000)},
					UserName:  strings.Repeat("x", 10) + fmt.Sprint(i),
				}
				records[i] = r.Pack()
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			x := newOnlineIndex(func(a netip.Addr) string {
				o := a.As4()
				return records[int(o[1]-64)<<16|int(o[2])<<8|int(o[3])-1].UserName()
			})
			for i := range records {
				x.add(&records[i])
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			for i := 0; b.Loop(); i++ {
				r := &records[i*7919%n]
				x.remove(r)
				x.add(r)
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/subscriber")
		})
	}
}
