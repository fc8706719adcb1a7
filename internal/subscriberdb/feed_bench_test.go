package subscriberdb

import (
	"fmt"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// BenchmarkFeed reads the feed of a busy time; one operation is one change.
func BenchmarkFeed(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	for _, limit := range []int{5, 100} {
		b.Run(fmt.Sprintf("entries=%d", limit), func(b *testing.B) {
			db := benchDB(b, client)
			for round := range 90 {
				recordLife(b, db, []subscriber.EventKind{mixed[0], mixed[1], mixed[3]}, round, 128)
			}
			used := startMeter(b, client)
			b.ReportAllocs()
			b.ResetTimer()
			var room []subscriber.Change
			for n, after := 0, beginning; n < b.N; {
				changes, last, err := db.Feed(b.Context(), "default", after, limit, 0, room)
				if err != nil {
					b.Fatal(err)
				}
				room = changes
				if n += len(changes); last == after {
					last = beginning
				}
				after = last
			}
			used.report(b)
		})
	}
}
