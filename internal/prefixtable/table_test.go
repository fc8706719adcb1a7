package prefixtable_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/prefixtable"
)

// TestRandomPrefixes compares a table with a search through all of its prefixes.
func TestRandomPrefixes(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		var table prefixtable.Table[int]
		model := map[netip.Prefix]int{}
		for i := range 40 {
			a := randomAddr(r)
			p := netip.PrefixFrom(a, r.IntN(a.BitLen()+1))
			table.Put(p, i)
			model[p.Masked()] = i
		}
		if table.Len() != len(model) {
			t.Fatalf("seed %d: %d prefixes, want %d", seed, table.Len(), len(model))
		}
		for range 200 {
			a := randomAddr(r)
			want, bits := 0, -1
			for p, v := range model {
				if p.Contains(a) && p.Bits() > bits {
					want, bits = v, p.Bits()
				}
			}
			if got, ok := table.Lookup(a); got != want || ok != (bits >= 0) {
				t.Fatalf("seed %d: %s has %d, %t; want %d of /%d", seed, a, got, ok, want, bits)
			}
		}
		for p, want := range model {
			if got, ok := table.At(p); got != want || !ok {
				t.Fatalf("seed %d: %s has %d, %t; want %d", seed, p, got, ok, want)
			}
		}
	}
}

// randomAddr draws from few values, so that prefixes contain each other.
func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{byte(r.IntN(2) * 10), byte(r.IntN(2)), 0, byte(r.IntN(4))})
	}
	var b [16]byte
	b[0], b[1], b[15] = 0x20, byte(r.IntN(3)), byte(r.IntN(4))
	return netip.AddrFrom16(b)
}

func TestMappedAddresses(t *testing.T) {
	var table prefixtable.Table[string]
	if _, ok := table.Lookup(netip.MustParseAddr("10.0.0.1")); ok {
		t.Error("an empty table has an address")
	}
	table.Put(netip.MustParsePrefix("::ffff:10.0.0.0/104"), "mapped")
	table.Put(netip.Prefix{}, "invalid")
	for _, a := range []string{"10.1.2.3", "::ffff:10.1.2.3"} {
		if got, _ := table.Lookup(netip.MustParseAddr(a)); got != "mapped" {
			t.Errorf("%s has %q", a, got)
		}
	}
	if got, _ := table.At(netip.MustParsePrefix("10.9.9.9/8")); got != "mapped" {
		t.Errorf("10.9.9.9/8 has %q", got)
	}
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("::1"), netip.MustParseAddr("11.0.0.1")} {
		if got, ok := table.Lookup(a); ok {
			t.Errorf("%s has %q", a, got)
		}
	}
}

// BenchmarkLookup measures a look-up by the number of prefix lengths in use, in the shortest
// of them.
func BenchmarkLookup(b *testing.B) {
	for _, lengths := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprint("lengths=", lengths), func(b *testing.B) {
			var table prefixtable.Table[int]
			for i := range lengths {
				for n := range 100 {
					table.Put(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(n), 0}), 32-i), n)
				}
			}
			a := netip.AddrFrom4([4]byte{10, byte(lengths - 1), 50, 0})
			for b.Loop() {
				if _, ok := table.Lookup(a); !ok {
					b.Fatal(a)
				}
			}
		})
	}
}
