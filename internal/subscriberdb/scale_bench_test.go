package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// BenchmarkScale measures operations with many subscribers, each part as one operation: all
// begin and get Interims ("begin"), their bindings are stored ("save"), a start reads
// everything ("start"), a comparison covers all by key ("compare"), their NAS restarts
// ("restart"), and bindings are moved from the key of earlier versions ("move"). It reports
// the CPU time of both sides, the longest single command by Redis's own log, and the
// longest answer time for a client that asks every millisecond on this machine.
func BenchmarkScale(b *testing.B) {
	for _, n := range []int{100_000, 300_000, 1_000_000} {
		b.Run(fmt.Sprintf("subscribers=%d", n), func(b *testing.B) {
			s := &scale{client: redistest.Start(b, benchRedis...), n: n}
			s.db = benchDB(b, s.client)
			s.bindings = scaleBindings(n)
			for _, part := range []struct {
				name string
				do   func(*testing.B)
			}{
				{"begin", s.begin}, {"save", s.save}, {"start", s.start}, {"compare", s.compare},
				{"restart", s.restart}, {"move", s.move},
			} {
				b.Run(part.name, func(b *testing.B) {
					if b.N > 1 {
						b.Skip("takes long enough for one")
					}
					s.part(b, part.do)
				})
			}
		})
	}
}

type scale struct {
	client   redis.UniversalClient
	db       *DB
	n        int
	bindings []nat.Binding
}

func scaleBindings(n int) []nat.Binding {
	bindings := make([]nat.Binding, n)
	for i := range bindings {
		name := fmt.Sprintf("subscriber%d@example.net", i)
		bindings[i] = nat.Binding{Group: "default", AllocatedAt: t0.Add(time.Duration(i)), Blocks: nat.Blocks{Block: nat.Block{Outside: netip.AddrFrom4([4]byte{198, 0, byte(i / 126 >> 8), byte(i / 126)}), First: nat.Port(1024 + i%126*512), Last: nat.Port(1535 + i%126*512)}}, Holder: nat.Holder{Inside: scaleAddr(i), Identity: "u:" + name, UserName: name, AcctSessionID: fmt.Sprintf("%08x", i)}}
	}
	return bindings
}

func scaleAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
}

// part runs one part, and reports its cost.
func (s *scale) part(b *testing.B, do func(*testing.B)) {
	ctx := b.Context()
	s.client.ConfigSet(ctx, "slowlog-log-slower-than", "500")
	s.client.ConfigSet(ctx, "slowlog-max-len", "1000")
	s.client.Do(ctx, "SLOWLOG", "RESET")
	s.client.ConfigResetStat(ctx)
	probing, stop := context.WithCancel(ctx)
	longest := make(chan time.Duration)
	go func() { longest <- s.probe(probing) }()
	used := startMeter(b, s.client)
	b.ResetTimer()
	do(b)
	b.StopTimer()
	b.ReportMetric((ownTime() - used.own).Seconds(), "go-s")
	b.ReportMetric((threadTime(used.pid) - used.redis).Seconds(), "redis-s")
	stop()
	b.ReportMetric(float64((<-longest).Microseconds())/1000, "pause-ms")
	slow, err := s.client.SlowLogGet(ctx, 1000).Result()
	if err != nil {
		b.Fatal(err)
	}
	slowest := redis.SlowLog{}
	for _, l := range slow {
		if l.Duration > slowest.Duration {
			slowest = l
		}
	}
	b.ReportMetric(float64(slowest.Duration.Microseconds())/1000, "slowest-ms")
	if len(slowest.Args) > 3 {
		slowest.Args = slowest.Args[:3]
	}
	b.Logf("microseconds by command: %s", strings.Join(s.commands(ctx), ", "))
	b.Logf("%d commands over 0.5 ms, the slowest %.60q", len(slow), slowest.Args)
}

// commands lists the commands in which Redis spent its time. Commands in scripts are
// counted twice.
func (s *scale) commands(ctx context.Context) []string {
	var list []string
	for line := range strings.Lines(s.client.Info(ctx, "commandstats").Val()) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		calls, rest, _ := strings.Cut(rest, ",usec=")
		if spent, _, ok := strings.Cut(rest, ","); ok && len(spent) > 4 {
			list = append(list, fmt.Sprintf("%s %s (%s calls)", name, spent, calls))
		}
	}
	return list
}

// probe asks Redis every millisecond, and returns the longest answer time.
func (s *scale) probe(ctx context.Context) time.Duration {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	longest := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return longest
		case <-ticker.C:
			asked := time.Now()
			s.client.Ping(context.WithoutCancel(ctx))
			longest = max(longest, time.Since(asked))
		}
	}
}

func (s *scale) begin(b *testing.B) {
	before := heapInUse()
	kinds := []subscriber.EventKind{subscriber.EventStart, subscriber.EventInterim}
	if s.n > 100_000 {
		kinds = kinds[:1] // the benchmark takes minutes
	}
	for _, kind := range kinds {
		for first := 0; first < s.n; first += 500 {
			recordN(b, s.db, kind, first, 500, time.Minute)
		}
	}
	b.StopTimer()
	b.ReportMetric((heapInUse()-before)/float64(s.n), "heap-B/subscriber")
}

// heapInUse returns the live heap, in octets.
func heapInUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func (s *scale) save(b *testing.B) {
	if err := s.db.SaveBindings(b.Context(), "default", s.bindings, nil); err != nil {
		b.Fatal(err)
	}
}

func (s *scale) start(b *testing.B) {
	records := 0
	err := s.db.Records(b.Context(), "default", func(list []subscriber.Record) error { records += len(list); return nil })
	if err != nil || records < s.n {
		b.Fatal(records, err)
	}
	rows := 0
	err = s.db.BindingRows(b.Context(), "default", func(list []BindingRow) error {
		for i := range list {
			if _, ok := list[i].Binding(); ok {
				rows++
			}
		}
		return nil
	})
	if err != nil || rows != s.n {
		b.Fatal(rows, err)
	}
}

func (s *scale) compare(b *testing.B) {
	for first := 0; first < s.n; first += redisconn.PipelineLimit {
		part := s.bindings[first:min(first+redisconn.PipelineLimit, s.n)]
		var inside []netip.Addr
		var blocks []nat.Place
		for i := range part {
			inside, blocks = append(inside, part[i].Inside), append(blocks, part[i].Place())
		}
		gone, errGone := s.db.Gone(b.Context(), "default", inside)
		rows, errRows := s.db.BindingRowsAt(b.Context(), "default", blocks)
		if errGone != nil || errRows != nil || len(gone) > 0 {
			b.Fatal(len(gone), errGone, errRows)
		}
		for i := range rows {
			if !rows[i].Is(&part[i]) {
				b.Fatal(rows[i].Place)
			}
		}
	}
}

// restart ends all sessions while a reader follows the feed and stores its position.
func (s *scale) restart(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	tail, err := s.db.Tail(ctx, "default")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.db.TrimFeeds(ctx) }()
	go func() { _ = s.db.SweepRestarts(ctx, nil) }()
	record(b, s.db, event(subscriber.EventAccountingOff, "", noAddr, time.Hour))
	var room []subscriber.Change
	told := time.Now()
	s.sizes(b, codec.BindingsKey("default", 7), codec.OnlineKey("default"))
	for ended := 0; ended < s.n; {
		changes, last, err := s.db.Feed(ctx, "default", tail, 100, 100*time.Millisecond, room)
		if err != nil {
			b.Fatal(err)
		}
		for i := range changes {
			if changes[i].Kind == subscriber.Deleted {
				ended++
			}
		}
		room, tail = changes, last
		if time.Since(told) > time.Second {
			told = time.Now()
			if err := s.db.TellPosition(ctx, "default", "test", tail); err != nil {
				b.Fatal(err)
			}
		}
	}
	s.sizes(b, codec.FeedKey("default"))
	if n := s.client.HLen(ctx, codec.OnlineKey("default")).Val(); n != 0 {
		b.Errorf("%d are online", n)
	}
}

func (s *scale) move(b *testing.B) {
	b.StopTimer()
	for first := 0; first < s.n; first += 512 {
		args := []any{"hset", codec.OldBindingsKey("default")}
		for i := range s.bindings[first:min(first+512, s.n)] {
			x := &s.bindings[first+i]
			args = append(args, codec.FormatPlace(x.Place()), codec.AppendBinding(nil, x))
		}
		if err := s.client.Do(b.Context(), args...).Err(); err != nil {
			b.Fatal(err)
		}
	}
	s.sizes(b, codec.OldBindingsKey("default"))
	s.client.Do(b.Context(), "SLOWLOG", "RESET")
	b.StartTimer()
	if err := newDB(b, s.client).SaveBindings(b.Context(), "default", nil, nil); err != nil {
		b.Fatal(err)
	}
}

// sizes logs the memory of keys.
func (s *scale) sizes(b *testing.B, keys ...string) {
	for _, key := range keys {
		b.Logf("%s: %d octets", key, s.client.MemoryUsage(b.Context(), key, 1000).Val())
	}
}
