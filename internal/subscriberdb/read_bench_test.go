package subscriberdb

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// BenchmarkRecords measures the reads of a start ("records") and those of a comparison; one
// operation is one record.
func BenchmarkRecords(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	db := benchDB(b, client)
	const n = 100_000
	for first := 0; first < n; first += 500 {
		recordN(b, db, subscriber.EventStart, first, 500, 0)
	}
	b.Run("records", func(b *testing.B) {
		measure(b, client, func() int {
			count := 0
			err := db.Records(b.Context(), "default", func(records []subscriber.Record) error { count += len(records); return nil })
			if err != nil || count < n {
				b.Fatal(count, err)
			}
			return count
		})
	})
	b.Run("versions", func(b *testing.B) {
		measure(b, client, func() int {
			count := 0
			err := db.Versions(b.Context(), "default", func(standing []RecordVersion) error { count += len(standing); return nil })
			if err != nil || count < n {
				b.Fatal(count, err)
			}
			return count
		})
	})
	for _, size := range []int{64, redisconn.PipelineLimit} {
		inside := make([]netip.Addr, size)
		for i := range inside {
			inside[i] = netip.AddrFrom4([4]byte{100, 0, byte(i * 7 >> 8), byte(i * 7)})
		}
		b.Run(fmt.Sprintf("gone=%d", size), func(b *testing.B) {
			measure(b, client, func() int {
				if gone, err := db.Gone(b.Context(), "default", inside); err != nil || len(gone) > 0 {
					b.Fatal(gone, err)
				}
				return size
			})
		})
	}
}
