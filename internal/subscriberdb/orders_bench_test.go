package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// BenchmarkMassDeletion measures the deletion of all subscribers of a group in one call, as one
// operation: by sessiond itself, without entries, and by a caller, with an audit entry for each 64,
// twice each in the order A B B A, as the machine may have other load. It reports the rate of both,
// and how many times longer the caller's takes.
func BenchmarkMassDeletion(b *testing.B) {
	for _, n := range []int{100_000, 200_000} {
		b.Run(fmt.Sprintf("subscribers=%d", n), func(b *testing.B) {
			if b.N > 1 {
				b.Skip("takes long enough for one")
			}
			client := redistest.Start(b, benchRedis...)
			remove := func(ctx context.Context) time.Duration {
				db := benchDB(b, client)
				keys := make([]subscriber.Key, n)
				for first := 0; first < n; first += 500 {
					recordN(b, db, subscriber.EventStart, first, 500, 0)
				}
				for k := range keys {
					keys[k] = key(netip.AddrFrom4([4]byte{100, byte(k >> 16), byte(k >> 8), byte(k)}))
				}
				begin := time.Now()
				if ended, err := db.Delete(ctx, keys, subscriber.ReasonAdmin, nil); err != nil || len(ended) != n {
					b.Fatal(len(ended), err)
				}
				return time.Since(begin)
			}
			order := func() context.Context { return ordered(b, "DeleteSubscribers", "") }
			plain, recorded := remove(b.Context()), remove(order())+remove(order())
			plain += remove(b.Context())
			b.ReportMetric(2*float64(n)/plain.Seconds(), "plain/s")
			b.ReportMetric(2*float64(n)/recorded.Seconds(), "ordered/s")
			b.ReportMetric(recorded.Seconds()/plain.Seconds(), "ordered/plain")
		})
	}
}

// withoutAudit is a hook that replaces scripts, while it is on, by the same without the code for
// audit entries.
type withoutAudit struct {
	on     atomic.Bool
	hashes map[string]string // of the scripts without it, by those of the scripts
}

// newWithoutAudit loads the scripts without the code into a server.
func newWithoutAudit(b *testing.B, client redis.UniversalClient) *withoutAudit {
	b.Helper()
	w := &withoutAudit{hashes: map[string]string{}}
	general, fast := txn.Scripts()
	for _, script := range append(fast, general) {
		text := &scriptText{}
		script.Load(b.Context(), text)
		rest, found := strings.CutPrefix(text.text, "\nlocal whole = false\nlocal function record() end\n")
		if !found {
			continue // it has none
		}
		rest = strings.ReplaceAll(strings.ReplaceAll(rest, "record()\n", "\n"), "if whole", "if false")
		hash, err := client.ScriptLoad(b.Context(), rest).Result()
		if err != nil {
			b.Fatal(err)
		}
		w.hashes[script.Hash()] = hash
	}
	if len(w.hashes) != 2 {
		b.Fatalf("%d scripts have the code: %v", len(w.hashes), w.hashes)
	}
	client.AddHook(w)
	return w
}

// scriptText gets the text of a script.
type scriptText struct {
	redis.Scripter
	text string
}

func (s *scriptText) ScriptLoad(ctx context.Context, text string) *redis.StringCmd {
	s.text = text
	cmd := redis.NewStringCmd(ctx)
	cmd.SetErr(errors.New("not loaded")) // or the script would have no hash
	return cmd
}

func (w *withoutAudit) DialHook(next redis.DialHook) redis.DialHook { return next }

func (w *withoutAudit) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (w *withoutAudit) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			args := cmd.Args()
			if hash, ok := args[min(1, len(args)-1)].(string); ok && w.on.Load() && w.hashes[hash] != "" {
				args[1] = w.hashes[hash]
			}
		}
		return next(ctx, cmds)
	}
}

// BenchmarkAuditInAccounting measures Accounting-Stops, the only events whose script can have an
// audit entry, as it is and without the code for that. One operation is a round of 4,096 of each.
// It reports the shares of the time, and of Redis's CPU time, that the script as it is takes.
func BenchmarkAuditInAccounting(b *testing.B) {
	const sessions = 4096
	for _, batch := range []int{32, 512} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			client := redistest.Start(b, benchRedis...)
			db := benchDB(b, client)
			without := newWithoutAudit(b, client)
			pid := startMeter(b, client).pid
			var took, used [2]time.Duration
			for round := range b.N {
				for turn := range 2 {
					mode := (round + turn) % 2
					at := time.Duration(2*round+turn) * time.Hour
					for first := 0; first < sessions; first += 512 {
						recordN(b, db, subscriber.EventStart, first, 512, at)
					}
					without.on.Store(mode == 1)
					begin, cpu := time.Now(), threadTime(pid)
					for first := 0; first < sessions; first += batch {
						recordN(b, db, subscriber.EventStop, first, batch, at+time.Minute)
					}
					took[mode] += time.Since(begin)
					used[mode] += threadTime(pid) - cpu
					without.on.Store(false)
				}
			}
			b.ReportMetric(float64(sessions*b.N)/took[0].Seconds(), "events/s")
			b.ReportMetric(float64(took[0])/float64(took[1]), "with/without-time")
			b.ReportMetric(float64(used[0])/float64(used[1]), "with/without-redis")
		})
	}
}
