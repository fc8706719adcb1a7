package addrrange_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/addrrange"
)

func TestOf(t *testing.T) {
	type ranges = addrrange.Set
	for _, tc := range []struct {
		name     string
		prefixes []string
		want     ranges
	}{
		{"none", nil, nil},
		{"one", []string{"100.64.0.0/10"}, ranges{{0x64400000, 0x647fffff}}},
		{"host bits", []string{"10.0.0.9/8"}, ranges{{0x0a000000, 0x0affffff}}},
		{"neighbours", []string{"10.0.1.0/24", "10.0.0.0/24"}, ranges{{0x0a000000, 0x0a0001ff}}},
		{"inside each other", []string{"10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"}, ranges{{0x0a000000, 0x0bffffff}}},
		{"apart", []string{"10.0.2.0/24", "10.0.0.0/24"}, ranges{{0x0a000000, 0x0a0000ff}, {0x0a000200, 0x0a0002ff}}},
		{"all", []string{"0.0.0.0/0"}, ranges{{0, 0xffffffff}}},
		{"the end", []string{"255.255.255.255/32"}, ranges{{0xffffffff, 0xffffffff}}},
	} {
		var prefixes []netip.Prefix
		for _, p := range tc.prefixes {
			prefixes = append(prefixes, netip.MustParsePrefix(p))
		}
		if got := addrrange.Of(prefixes); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %x, want %x", tc.name, got, tc.want)
		}
	}
}

// TestWithout compares the difference of random sets with what they contain.
func TestWithout(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	random := func() (prefixes []netip.Prefix) {
		for range r.IntN(6) {
			end := byte(r.IntN(2)) * 255
			prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{end, end, end, byte(r.IntN(256))}), 24+r.IntN(9)).Masked())
		}
		return prefixes
	}
	for range 2000 {
		a, b := random(), random()
		all, other := addrrange.Of(a), addrrange.Of(b)
		rest := all.Without(other)
		for i := range rest {
			if i > 0 && rest[i].First <= rest[i-1].Last {
				t.Fatalf("%v without %v is %v", a, b, rest)
			}
		}
		for _, first := range []uint32{0, 0xffffff00} {
			for i := range uint32(256) {
				if n := first + i; rest.Contains(n) != (all.Contains(n) && !other.Contains(n)) {
					t.Fatalf("%v without %v has %v: %t", a, b, addrrange.Address(n), rest.Contains(n))
				}
			}
		}
	}
}

// TestRandomPrefixes: addresses near the ends of prefixes are in the set
// exactly if a prefix contains them, and the prefixes of the set's ranges are
// the fewest with the same addresses.
func TestRandomPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		prefixes := make([]netip.Prefix, r.IntN(12))
		var near []netip.Addr
		for i := range prefixes {
			a := netip.AddrFrom4([4]byte{byte(r.IntN(2)) * 255, byte(r.IntN(2)) * 255, byte(r.IntN(4)), byte(r.IntN(256))})
			prefixes[i] = netip.PrefixFrom(a, r.IntN(33)).Masked()
			near = append(near, prefixes[i].Addr(), prefixes[i].Addr().Prev(), a, a.Next())
		}
		set := addrrange.Of(prefixes)
		for _, a := range near {
			if !a.Is4() {
				continue // before the first or after the last IPv4 address
			}
			b := a.As4()
			want := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
			if set.Contains(binary.BigEndian.Uint32(b[:])) != want {
				t.Fatalf("%v is in %v: %t, want %t", a, prefixes, !want, want)
			}
		}
		var again []netip.Prefix
		for _, s := range set {
			again = s.AppendPrefixes(again)
		}
		if !slices.Equal(addrrange.Of(again), set) {
			t.Fatalf("%v is written as %v", prefixes, again)
		}
		for i, p := range again {
			if p != p.Masked() || i > 0 && again[i-1].Overlaps(p) {
				t.Fatalf("%v is written as %v", prefixes, again)
			}
		}
	}
}

func BenchmarkContains(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("ranges=", n), func(b *testing.B) {
			prefixes := make([]netip.Prefix, n)
			for i := range prefixes {
				prefixes[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(i), 0}), 25)
			}
			set := addrrange.Of(prefixes)
			for b.Loop() {
				if !set.Contains(100<<24 | 64<<16 | 9) {
					b.Fatal("not in it")
				}
			}
		})
	}
}
