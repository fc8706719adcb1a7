package addrtable_test

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/addrtable"
)

// TestRandomWalk compares a table with a map, with addresses dense in places,
// alone in others, and at both ends.
func TestRandomWalk(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 0))
		draw := func() netip.Addr {
			n := [...]uint32{0, 10 << 24, 10<<24 + 0xff00, 0xffffff00, 100 << 24}[r.IntN(5)]
			n += r.Uint32N(1 << r.IntN(10))
			if r.IntN(10) == 0 {
				n += r.Uint32N(1 << 22)
			}
			return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		}
		var table addrtable.Table[int]
		model := map[netip.Addr]int{}
		for step := range 2000 {
			a := draw()
			if r.IntN(1000) < 450+int(seed)*5 {
				table.Put(a, step)
				model[a] = step
			} else {
				if len(model) > 0 && r.IntN(2) == 0 { // a present address
					all := slices.SortedFunc(maps.Keys(model), netip.Addr.Compare)
					a = all[r.IntN(len(all))]
				}
				table.Remove(a)
				delete(model, a)
			}
			a = draw()
			want, ok := model[a]
			if got, there := table.At(a); got != want || there != ok || table.Len() != len(model) {
				t.Fatalf("seed %d, step %d: %s: %d, %t of %d; want %d, %t of %d",
					seed, step, a, got, there, table.Len(), want, ok, len(model))
			}
			if step%50 == 0 {
				compare(t, &table, model, netip.Addr{})
				compare(t, &table, model, draw())
			}
		}
		for a := range model {
			table.Remove(a)
		}
		compare(t, &table, nil, netip.Addr{})
	}
}

func compare(t *testing.T, table *addrtable.Table[int], model map[netip.Addr]int, first netip.Addr) {
	t.Helper()
	var want []string
	for _, a := range slices.SortedFunc(maps.Keys(model), netip.Addr.Compare) {
		if first.Compare(a) <= 0 {
			want = append(want, fmt.Sprint(a, model[a]))
		}
	}
	if got := told(table.From(first)); !slices.Equal(got, want) {
		t.Fatalf("from %s: %v, want %v", first, got, want)
	}
}

func told(items iter.Seq2[netip.Addr, int]) (all []string) {
	for a, v := range items {
		all = append(all, fmt.Sprint(a, v))
	}
	return all
}

// TestChangesDuringWalk changes the table during an iteration: an address that
// stays is yielded once and in order, and every yielded address was present.
func TestChangesDuringWalk(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		draw := func() netip.Addr {
			return netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), byte(r.IntN(3)), byte(r.IntN(256))})
		}
		var table addrtable.Table[int]
		model, stood := map[netip.Addr]int{}, map[netip.Addr]bool{}
		for i := range r.IntN(300) {
			a := draw()
			table.Put(a, i)
			model[a], stood[a] = i, true
		}
		var last netip.Addr
		for a, v := range table.From(last) {
			if a.Compare(last) <= 0 || model[a] != v {
				t.Fatalf("seed %d: %s with %d behind %s, want %d", seed, a, v, last, model[a])
			}
			last = a
			delete(stood, a)
			for i := range r.IntN(8) {
				if a := draw(); r.IntN(3) > 0 {
					table.Remove(a)
					delete(model, a)
					delete(stood, a)
				} else {
					table.Put(a, i)
					model[a] = i
				}
			}
		}
		if len(stood) > 0 {
			t.Fatalf("seed %d: %d were never told of", seed, len(stood))
		}
	}
}

func TestNotIPv4(t *testing.T) {
	var table addrtable.Table[int]
	table.Put(netip.MustParseAddr("10.0.0.1"), 1)
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:10.0.0.1")} {
		table.Remove(a)
		if v, ok := table.At(a); ok {
			t.Errorf("%s has %d", a, v)
		}
	}
	if got := told(table.From(netip.MustParseAddr("::"))); len(got) > 0 {
		t.Errorf("%v is behind every IPv4 address", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("an IPv6 address was put")
		}
	}()
	table.Put(netip.MustParseAddr("::1"), 1)
}

// TestPlace changes a T in place.
func TestPlace(t *testing.T) {
	var table addrtable.Table[int]
	a := netip.MustParseAddr("10.0.0.1")
	table.Put(a, 1)
	table.Put(a, 2)
	*table.Place(a) += 5
	if v, _ := table.At(a); v != 7 || table.Len() != 1 {
		t.Errorf("%d of %d", v, table.Len())
	}
}

// BenchmarkAt measures a look-up of a random address.
func BenchmarkAt(b *testing.B) {
	eachCrowd(b, func(b *testing.B, table *addrtable.Table[[2]uint64], addrs []netip.Addr) {
		for i := 0; b.Loop(); i++ {
			if table.Place(addrs[i%len(addrs)]) == nil {
				b.Fatal(addrs[i%len(addrs)])
			}
		}
	})
}

// BenchmarkPutRemove measures removing an address and adding it again.
func BenchmarkPutRemove(b *testing.B) {
	eachCrowd(b, func(b *testing.B, table *addrtable.Table[[2]uint64], addrs []netip.Addr) {
		for i := 0; b.Loop(); i++ {
			table.Remove(addrs[i%len(addrs)])
			table.Put(addrs[i%len(addrs)], [2]uint64{})
		}
	})
}

// eachCrowd runs a benchmark with tables of many addresses, given in random
// order.
func eachCrowd(b *testing.B, run func(*testing.B, *addrtable.Table[[2]uint64], []netip.Addr)) {
	for _, n := range []int{100_000, 1_000_000} {
		for _, step := range []uint32{1, 37} {
			var table addrtable.Table[[2]uint64]
			addrs := make([]netip.Addr, n)
			for i := range addrs {
				x := 10<<24 + uint32(i)*step
				addrs[i] = netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
				table.Put(addrs[i], [2]uint64{})
			}
			rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
			b.Run(fmt.Sprintf("addresses=%d/every=%d", n, step), func(b *testing.B) { run(b, &table, addrs) })
		}
	}
}

// BenchmarkMemory reports the octets of an address beside its T of 16.
func BenchmarkMemory(b *testing.B) {
	for name, step := range map[string]uint32{"dense": 1, "one-in-16": 16, "one-per-24": 256} {
		b.Run(name, func(b *testing.B) {
			const n = 1 << 18
			var before, after runtime.MemStats
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				var table addrtable.Table[[2]uint64]
				for i := range uint32(n) {
					x := 10<<24 + i*step
					table.Put(netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)}), [2]uint64{})
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				runtime.KeepAlive(&table)
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n-16, "B/address")
		})
	}
}
