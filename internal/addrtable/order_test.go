package addrtable_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/addrtable"
)

type named struct {
	name string
	addr netip.Addr
}

func compareNamed(a, b named) int {
	return cmp.Or(cmp.Compare(a.name, b.name), a.addr.Compare(b.addr))
}

// orderModel has the name of each listed address.
type orderModel map[netip.Addr]string

func (m orderModel) from(first named) (want []named) {
	for a, name := range m {
		if n := (named{name, a}); compareNamed(first, n) < 0 {
			want = append(want, n)
		}
	}
	slices.SortFunc(want, compareNamed)
	return want
}

// TestOrderRandomWalk compares an order with a map, and changes it during iterations: an
// address that stays listed is yielded once and in order.
func TestOrderRandomWalk(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 3))
		model := orderModel{}
		order := addrtable.NewOrder(func(a netip.Addr) string { return model[a] })
		names := []int{1, 40, 100_000}[seed%3] // all of one name, few, as many as addresses
		draw := func() named {
			n := [...]uint32{0, 10 << 24, 1<<32 - 512}[r.IntN(3)] + r.Uint32N(512)
			name := fmt.Sprint("u", r.IntN(names))
			if r.IntN(20) == 0 {
				name += "\x00"
			}
			return named{name, netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})}
		}
		change := func(share int) netip.Addr {
			l := draw()
			if has, listed := model[l.addr]; listed {
				order.Remove(has, l.addr)
				delete(model, l.addr)
			}
			if r.IntN(100) < share {
				model[l.addr] = l.name
				order.Add(l.name, l.addr)
			}
			return l.addr
		}
		for step := range 20_000 {
			change([...]int{95, 60, 10}[step/2000%3]) // it grows and shrinks
			if order.Len() != len(model) {
				t.Fatalf("seed %d, step %d: %d, want %d", seed, step, order.Len(), len(model))
			}
			if step%500 > 0 {
				continue
			}
			first := draw()
			if r.IntN(3) == 0 {
				first.addr = netip.Addr{}
			}
			var got []named
			for name, a := range order.From(first.name, first.addr) {
				got = append(got, named{name, a})
			}
			if want := model.from(first); !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: from %v %v, want %v", seed, step, first, got, want)
			}
		}
		stood := map[named]bool{}
		for a, name := range model {
			stood[named{name, a}] = true
		}
		last := named{}
		for name, a := range order.From("", netip.Addr{}) {
			n := named{name, a}
			if compareNamed(n, last) <= 0 || model[a] != name {
				t.Fatalf("seed %d: %v behind %v", seed, n, last)
			}
			last = n
			delete(stood, n)
			for range r.IntN(10) {
				changed := change(40)
				for n := range stood {
					if n.addr == changed {
						delete(stood, n)
					}
				}
			}
		}
		if len(stood) > 0 {
			t.Fatalf("seed %d: never told of %v", seed, stood)
		}
		for a, name := range model {
			order.Remove(name, a)
			order.Remove(name, a) // is not there any more
		}
		if order.Len() != 0 {
			t.Fatalf("%d are left", order.Len())
		}
	}
}

// BenchmarkOrder measures time and memory of a million addresses with names of their own, added
// in random order.
func BenchmarkOrder(b *testing.B) {
	const n = 1_000_000
	list := make([]named, n)
	for i := range list {
		x := 10<<24 + uint32(i)
		list[i] = named{fmt.Sprintf("user-%07d@example.net", i*7919%n), netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	order := addrtable.NewOrder(func(a netip.Addr) string {
		o := a.As4()
		return list[int(o[1])<<16|int(o[2])<<8|int(o[3])].name
	})
	for _, l := range list {
		order.Add(l.name, l.addr)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for i := 0; b.Loop(); i++ {
		l := list[i*6007%n]
		order.Remove(l.name, l.addr)
		order.Add(l.name, l.addr)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/address")
}
