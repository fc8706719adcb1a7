package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// BenchmarkRecord is group commit: events per second by size of the batch. One
// operation is one event. "cold" has nothing in the cache, as after a restart.
func BenchmarkRecord(b *testing.B) {
	client := realRedis(b, "--appendonly", "yes", "--appendfsync", "everysec")
	for _, batch := range []int{1, 16, 128, 512} {
		for _, kind := range []string{"start", "interim", "interim-cold", "start-stop"} {
			b.Run(fmt.Sprintf("%s/batch=%d", kind, batch), func(b *testing.B) {
				benchmarkRecord(b, client, kind, batch)
			})
		}
	}
}

func benchmarkRecord(b *testing.B, client redis.UniversalClient, kind string, batch int) {
	if err := client.FlushAll(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	db := newDB(b, client, func(o *Options) { o.Groups = o.Groups[:1] })
	if kind == "interim" || kind == "interim-cold" {
		recordN(b, db, subscriber.EventStart, 0, batch, 0)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		after := time.Duration(n+1) * time.Second
		switch kind {
		case "start":
			recordN(b, db, subscriber.EventStart, n, batch, 0)
		case "interim-cold":
			db.cache = newCache(defaultCacheSize)
			recordN(b, db, subscriber.EventInterim, 0, batch, after)
		case "interim":
			recordN(b, db, subscriber.EventInterim, 0, batch, after)
		case "start-stop":
			recordN(b, db, subscriber.EventStart, n, batch/2+1, 0)
			recordN(b, db, subscriber.EventStop, n, batch/2+1, time.Minute)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// recordN records one event for each of n subscribers in one batch.
func recordN(b *testing.B, db *DB, kind subscriber.EventKind, first, n int, after time.Duration) {
	b.Helper()
	events := make([]subscriber.Event, n)
	for i := range events {
		k := (first + i) % 65536
		events[i] = event(kind, fmt.Sprintf("%08x", first+i), netip.AddrFrom4([4]byte{100, 64, byte(k >> 8), byte(k)}), after)
	}
	for _, err := range db.Record(context.Background(), events) {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareScript is what Redis and the client do at best: the smallest
// script that updates a hash with a TTL and a stream, in pipelines of 512. The
// distance of BenchmarkRecord to it is the price of the rules.
func BenchmarkBareScript(b *testing.B) {
	client := realRedis(b, "--appendonly", "yes", "--appendfsync", "everysec")
	bare := redis.NewScript(`
redis.call('HGET', KEYS[1], 'version')
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'record', ARGV[1])
redis.call('HSET', KEYS[1], 'version', id, 'updated_at', ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2700000)
return 1`)
	if err := bare.Load(b.Context(), client).Err(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += pipelineLimit {
		pipe := client.Pipeline()
		for i := range pipelineLimit {
			keys := []string{fmt.Sprint("bare", (n+i)%65536), "feed"}
			pipe.EvalSha(b.Context(), bare.Hash(), keys, "2026-03-01T10:00:00Z")
		}
		if _, err := pipe.Exec(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
