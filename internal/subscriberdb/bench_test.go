package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// benchRedis has the options of a Redis in production, but the append-only file is not
// rewritten: with so few records that would happen all the time.
var benchRedis = []string{"--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"}

// BenchmarkRecord measures group commit: events per second by batch size. One operation is
// one event. "cold" begins with an empty cache, as after a start; "life" is a Start, an
// Interim and a Stop of each session, "mix" has two Interims. It reports the cost of an
// event separately: go-µs is CPU time of this process, redis-µs of Redis's main thread.
func BenchmarkRecord(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	for _, batch := range []int{1, 16, 128, 512} {
		for _, kind := range []string{"start", "interim", "interim-cold", "stop", "life", "mix"} {
			b.Run(fmt.Sprintf("%s/batch=%d", kind, batch), func(b *testing.B) {
				benchmarkRecord(b, client, kind, batch)
			})
		}
	}
}

func benchmarkRecord(b *testing.B, client redis.UniversalClient, kind string, batch int) {
	db := benchDB(b, client)
	sessions := 4096
	if kind == "stop" {
		sessions = b.N + batch
	}
	if strings.HasPrefix(kind, "interim") || kind == "stop" {
		for first := 0; first < sessions; first += 512 {
			recordN(b, db, subscriber.EventStart, first, 512, 0)
		}
	}
	used := startMeter(b, client)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		first, after := n%sessions, time.Duration(n/sessions+1)*time.Second
		switch kind {
		case "start":
			recordN(b, db, subscriber.EventStart, n, batch, 0)
		case "stop":
			recordN(b, db, subscriber.EventStop, n, batch, time.Minute)
		case "interim-cold":
			db = newBenchDB(b, client)
			recordN(b, db, subscriber.EventInterim, first, batch, after)
		case "interim":
			recordN(b, db, subscriber.EventInterim, first, batch, after)
		case "life":
			recordLife(b, db, []subscriber.EventKind{mixed[0], mixed[1], mixed[3]}, n/batch, batch)
		case "mix":
			recordLife(b, db, mixed[:], n/batch, batch)
		}
	}
	used.report(b)
}

// recordLife records the next event in the lives of n subscribers, and then those of n
// others.
func recordLife(b *testing.B, db *DB, life []subscriber.EventKind, round, n int) {
	b.Helper()
	phase := round % len(life)
	recordN(b, db, life[phase], round/len(life)*n, n, time.Duration(phase)*time.Minute)
}

// benchDB returns a DB with one group, with addresses for all sessions of a benchmark.
func benchDB(b *testing.B, client redis.UniversalClient) *DB {
	b.Helper()
	if err := client.FlushAll(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	return newBenchDB(b, client)
}

// newBenchDB returns another DB, with an empty cache.
func newBenchDB(b *testing.B, client redis.UniversalClient) *DB {
	b.Helper()
	return newDB(b, client, func(o *Options) {
		o.Groups = o.Groups[:1]
		o.Groups[0].Inside = []netip.Prefix{netip.MustParsePrefix("100.0.0.0/8")}
	})
}

// BenchmarkRecordTogether measures several workers at once, whose small batches share round
// trips.
func BenchmarkRecordTogether(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	for _, kind := range []string{"interim", "mix"} {
		for _, workers := range []int{2, 8, 32} {
			b.Run(fmt.Sprintf("%s/workers=%d/batch=32", kind, workers), func(b *testing.B) {
				benchmarkTogether(b, client, kind, workers, 32)
			})
		}
	}
}

func benchmarkTogether(b *testing.B, client redis.UniversalClient, kind string, workers, batch int) {
	db := benchDB(b, client)
	for w := range workers {
		recordN(b, db, subscriber.EventStart, w*batch, batch, 0)
	}
	used := startMeter(b, client)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range b.N / workers / batch {
				what, first := subscriber.EventInterim, w*batch
				if kind == "mix" {
					what, first = mixed[i%4], (1+i/4)*workers*batch+w*batch
				}
				recordN(b, db, what, first, batch, time.Duration(i+1)*time.Second)
			}
		})
	}
	wg.Wait()
	used.report(b)
}

// mixed holds the events of a session in the mix.
var mixed = [...]subscriber.EventKind{
	subscriber.EventStart, subscriber.EventInterim, subscriber.EventInterim, subscriber.EventStop,
}

// recordN records one event for each of n subscribers in one batch.
func recordN(b *testing.B, db *DB, kind subscriber.EventKind, first, n int, after time.Duration) {
	b.Helper()
	events := make([]subscriber.Event, n)
	for i := range events {
		k := first + i
		inside := netip.AddrFrom4([4]byte{100, byte(k >> 16), byte(k >> 8), byte(k)})
		events[i] = event(kind, fmt.Sprintf("%08x", k), inside, after)
		events[i].InputOctets, events[i].OutputOctets = uint64(after), uint64(after)*7
	}
	for _, err := range db.Record(context.Background(), events) {
		if err != nil {
			b.Error(err)
			return
		}
	}
}

// BenchmarkBareScript measures the upper limit of Redis and the client: the smallest script
// that updates a hash with a TTL and a stream, in pipelines of 512. The difference to
// BenchmarkRecord is the cost of the rules.
func BenchmarkBareScript(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	bare := redis.NewScript(`
redis.call('HGET', KEYS[1], 'version')
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'record', ARGV[1])
redis.call('HSET', KEYS[1], 'version', id, 'updated_at', ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2700000)
return 1`)
	if err := bare.Load(b.Context(), client).Err(); err != nil {
		b.Fatal(err)
	}
	used := startMeter(b, client)
	b.ResetTimer()
	for n := 0; n < b.N; n += redisconn.PipelineLimit {
		pipe := client.Pipeline()
		for i := range redisconn.PipelineLimit {
			keys := []string{fmt.Sprint("bare", (n+i)%65536), "feed"}
			pipe.EvalSha(b.Context(), bare.Hash(), keys, "2026-03-01T10:00:00Z")
		}
		if _, err := pipe.Exec(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	used.report(b)
}

// meter measures the processor time of both sides.
type meter struct {
	pid        string
	own, redis time.Duration
}

func startMeter(b *testing.B, client redis.UniversalClient) *meter {
	b.Helper()
	m := &meter{}
	for line := range strings.Lines(client.Info(b.Context(), "server").Val()) {
		if pid, ok := strings.CutPrefix(strings.TrimSpace(line), "process_id:"); ok {
			m.pid = pid
		}
	}
	m.own, m.redis = ownTime(), threadTime(m.pid)
	return m
}

func (m *meter) report(b *testing.B) {
	b.StopTimer()
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(per(ownTime()-m.own), "go-µs/event")
	b.ReportMetric(per(threadTime(m.pid)-m.redis), "redis-µs/event")
}

// ownTime returns the CPU time of this process; 0 if it is not available.
func ownTime() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// threadTime returns the CPU time of a process's main thread; 0 if it is not available.
func threadTime(pid string) time.Duration {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "schedstat"))
	if err != nil {
		return 0
	}
	on, _, _ := strings.Cut(string(text), " ")
	ns, _ := strconv.ParseInt(on, 10, 64)
	return time.Duration(ns)
}
