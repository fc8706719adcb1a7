package subscriberdb

import (
	"fmt"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// BenchmarkFeed reads what a busy time left in the feed; one operation is one change.
func BenchmarkFeed(b *testing.B) {
	client := realRedis(b, benchRedis...)
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

// BenchmarkSaveBindings stores the bindings of teardowns, and those before; one
// operation is one binding.
func BenchmarkSaveBindings(b *testing.B) {
	client := realRedis(b, benchRedis...)
	for _, batch := range []int{16, 128} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			db := benchDB(b, client)
			at := time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.UTC)
			bindings := make([]Binding, batch)
			for i := range bindings {
				bindings[i] = Binding{
					Group: "default", Inside: away, Outside: away, First: uint16(1024 + 32*i), Last: uint16(1055 + 32*i),
					Identity: "u:subscriber@example.net", UserName: "subscriber@example.net", AcctSessionID: "0000000012345678",
					AllocatedAt: at,
				}
				if b := &bindings[i]; i%2 == 0 {
					b.Held, b.ReleasedAt, b.HoldUntil = true, at, at
					b.Receipt = &Receipt{Elements: 2, Proof: "index", CutAt: at, ReapedAt: at, ReleasedAt: at}
				}
			}
			used := startMeter(b, client)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += batch {
				if err := db.SaveBindings(b.Context(), "default", bindings, nil); err != nil {
					b.Fatal(err)
				}
			}
			used.report(b)
		})
	}
}
