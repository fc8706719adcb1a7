package subscriberdb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// BenchmarkSaveBindings stores the bindings of teardowns, and the previous ones; one
// operation is one binding. With few outside addresses, as blocks are allocated at first,
// bindings share commands; with many they do not.
func BenchmarkSaveBindings(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	for _, batch := range []int{16, 128, 512} {
		for _, addresses := range []int{1, 8192} {
			b.Run(fmt.Sprintf("batch=%d/addresses=%d", batch, addresses), func(b *testing.B) {
				db := benchDB(b, client)
				list := benchBindings(batch, addresses)
				used := startMeter(b, client)
				b.ReportAllocs()
				b.ResetTimer()
				for n := 0; n < b.N; n += batch {
					if err := db.SaveBindings(b.Context(), "default", list, nil); err != nil {
						b.Fatal(err)
					}
				}
				used.report(b)
			})
		}
	}
}

// BenchmarkLoggedBindings stores the bindings of subscribers who come online and leave, with and
// without the NAT log; one operation is one binding that is stored, held and removed.
func BenchmarkLoggedBindings(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	for _, batch := range []int{1, 16, 128, 512} {
		for _, log := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/log=%v", batch, log), func(b *testing.B) {
				benchDB(b, client)
				db := newDB(b, client, func(o *Options) { o.LogNAT = log })
				live := benchBindings(batch, 8192)
				held := slices.Clone(live)
				for i := range live {
					live[i].State, live[i].ReleasedAt, live[i].HoldUntil, live[i].Receipt = nat.Active, time.Time{}, time.Time{}, nil
					held[i].State = nat.Held
				}
				used := startMeter(b, client)
				b.ReportAllocs()
				b.ResetTimer()
				for n := 0; n < b.N; n += batch {
					saveLife(b, db, live, held, log)
				}
				used.report(b)
			})
		}
	}
}

// saveLife stores bindings, holds and removes them.
func saveLife(b *testing.B, db *DB, live, held []nat.Binding, log bool) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.UTC)
	var err error
	var places []nat.Place
	var lives, holds, removes []bindings.LoggedWrite
	for i := range live {
		if !log {
			places = append(places, live[i].Place())
			continue
		}
		who := nat.Identity{
			Inside: away, UserName: live[i].UserName, Client: "bng1", NAS: "bng-1.example.net", NASAddress: netip.MustParseAddr("192.0.2.1"),
			AcctSessionID: live[i].AcctSessionID, CallingStationID: "02-00-5e-10-00-01",
		}
		lives = append(lives, bindings.LoggedWrite{Binding: &live[i], Holder: &who})
		holds = append(holds, bindings.LoggedWrite{Binding: &held[i], Left: at})
		removes = append(removes, bindings.LoggedWrite{Binding: &held[i], Remove: true})
	}
	if !log {
		err = errors.Join(db.SaveBindings(b.Context(), "default", live, nil), db.SaveBindings(b.Context(), "default", held, nil),
			db.SaveBindings(b.Context(), "default", nil, places))
	}
	for _, list := range [][]bindings.LoggedWrite{lives, holds, removes} {
		if log && err == nil {
			_, err = db.SaveLogged(b.Context(), "default", list)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
}

// benchBindings returns typical bindings, every other one held.
func benchBindings(n, addresses int) []nat.Binding {
	random := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.UTC)
	list := make([]nat.Binding, n)
	for i := range list {
		n := i/1024*7 + random.IntN(addresses)
		outside, first := netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), nat.Port(1024+i%1024*32)
		list[i] = nat.Binding{Group: "default", AllocatedAt: at, Blocks: nat.Blocks{Block: nat.Block{Outside: outside, First: first, Last: first + 31}}, Holder: nat.Holder{Inside: away, Identity: "u:subscriber@example.net", UserName: "subscriber@example.net", AcctSessionID: "0000000012345678"}}
		if b := &list[i]; i%2 == 0 {
			b.State, b.ReleasedAt, b.HoldUntil = nat.Held, at, at
			b.Receipt = &nat.Receipt{Elements: 2, Proof: nat.ProofIndex, CutAt: at, ReapedAt: at, ReleasedAt: at}
		}
	}
	return list
}

// BenchmarkBindingRows reads stored bindings, as a start does ("read") and as a
// comparison ("compare"), all ("walk") and by block ("at"); one operation is one binding.
func BenchmarkBindingRows(b *testing.B) {
	client := redistest.Start(b, benchRedis...)
	db := benchDB(b, client)
	list := benchBindings(100_000, 4096)
	if err := db.SaveBindings(b.Context(), "default", list, nil); err != nil {
		b.Fatal(err)
	}
	known := map[nat.Place]*nat.Binding{}
	for i := range list {
		known[list[i].Place()] = &list[i]
	}
	look := map[string]func(*BindingRow) bool{
		"read":    func(r *BindingRow) bool { _, ok := r.Binding(); return ok },
		"compare": func(r *BindingRow) bool { return r.Is(known[r.Place]) },
	}
	for _, what := range []string{"read", "compare"} {
		use := func(b *testing.B, rows []BindingRow) int {
			for i := range rows {
				if !look[what](&rows[i]) {
					b.Fatalf("row %v", rows[i].Place)
				}
			}
			return len(rows)
		}
		b.Run("walk/"+what, func(b *testing.B) {
			measure(b, client, func() int {
				n := 0
				err := db.BindingRows(b.Context(), "default", func(rows []BindingRow) error { n += use(b, rows); return nil })
				if err != nil {
					b.Fatal(err)
				}
				return n
			})
		})
		b.Run("at/"+what, func(b *testing.B) {
			blocks := make([]nat.Place, 0, redisconn.PipelineLimit)
			for _, x := range list[:redisconn.PipelineLimit] {
				blocks = append(blocks, x.Place())
			}
			measure(b, client, func() int {
				rows, err := db.BindingRowsAt(b.Context(), "default", blocks)
				if err != nil {
					b.Fatal(err)
				}
				return use(b, rows)
			})
		})
	}
}

// measure repeats a round, which returns its number of operations, until b.N operations are
// done.
func measure(b *testing.B, client redis.UniversalClient, round func() int) {
	used := startMeter(b, client)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		n += round()
	}
	used.report(b)
}
