package addrtable_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/addrtable"
)

type listed struct {
	key  uint32
	addr netip.Addr
}

type listedModel map[listed]bool

// TestIndexRandomWalk compares an index with a set, and changes it during
// iterations: an address that stays listed is yielded once and in order.
func TestIndexRandomWalk(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 2))
		draw := func() listed {
			key := [...]uint32{0, 1, 7, 1<<32 - 1}[r.IntN(4)]
			n := [...]uint32{0, 10 << 24, 1<<32 - 256}[r.IntN(3)] + r.Uint32N(256)
			return listed{key, netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})}
		}
		var index addrtable.Index
		model := listedModel{}
		change := func(share int) (removed listed) {
			if l := draw(); r.IntN(100) < share {
				index.Add(l.key, l.addr)
				model[l] = true
			} else {
				index.Remove(l.key, l.addr)
				delete(model, l)
				removed = l
			}
			return removed
		}
		for step := range 20_000 {
			change([...]int{80, 50, 20}[step/2000%3]) // it grows and shrinks
			if index.Len() != len(model) {
				t.Fatalf("seed %d, step %d: %d, want %d", seed, step, index.Len(), len(model))
			}
			if step%500 > 0 {
				continue
			}
			from := draw()
			if r.IntN(3) == 0 {
				from.addr = netip.Addr{}
			}
			if got, want := slices.Collect(index.From(from.key, from.addr)), model.from(from); !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: from %v %v, want %v", seed, step, from, got, want)
			}
		}
		for _, key := range []uint32{0, 1, 7, 1<<32 - 1} {
			stood, last := map[listed]bool{}, netip.Addr{}
			maps.Copy(stood, model)
			for a := range index.From(key, netip.Addr{}) {
				if a.Compare(last) <= 0 && last.IsValid() || !model[listed{key, a}] {
					t.Fatalf("seed %d: %s behind %s", seed, a, last)
				}
				last = a
				delete(stood, listed{key, a})
				for range r.IntN(10) {
					delete(stood, change(40))
				}
			}
			for l := range stood {
				if l.key == key {
					t.Fatalf("seed %d: %v was never told of", seed, l)
				}
			}
		}
		for l := range model {
			index.Remove(l.key, l.addr)
		}
		if got := slices.Collect(index.From(0, netip.Addr{})); index.Len() != 0 || len(got) > 0 {
			t.Fatalf("%d are left: %v", index.Len(), got)
		}
	}
}

func (m listedModel) from(f listed) (want []netip.Addr) {
	for l := range m {
		if l.key == f.key && f.addr.Compare(l.addr) <= 0 {
			want = append(want, l.addr)
		}
	}
	slices.SortFunc(want, netip.Addr.Compare)
	return want
}

// BenchmarkIndex measures time and memory of a million addresses, added in
// random order, by the number of keys.
func BenchmarkIndex(b *testing.B) {
	const n = 1_000_000
	for _, keys := range []uint32{1, 1000, n} {
		b.Run(fmt.Sprint("keys=", keys), func(b *testing.B) {
			var before, after runtime.MemStats
			list := make([]listed, n)
			for i := range list {
				x := 10<<24 + uint32(i)
				list[i] = listed{uint32(i) % keys * 2654435761, netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})}
			}
			rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { list[i], list[j] = list[j], list[i] })
			runtime.GC()
			runtime.ReadMemStats(&before)
			var index addrtable.Index
			for _, l := range list {
				index.Add(l.key, l.addr)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			for i := 0; b.Loop(); i++ {
				index.Remove(list[i%n].key, list[i%n].addr)
				index.Add(list[i%n].key, list[i%n].addr)
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/address")
		})
	}
}
