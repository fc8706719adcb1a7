package nat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

var outside = netip.MustParseAddr("198.51.100.1")

func ports(first, last Port) Block { return Block{outside, first, last} }

func TestBlocksWith(t *testing.T) {
	two, ok := Blocks{Block: ports(1024, 1535)}.With(ports(65024, 65535))
	if !ok {
		t.Fatal("a block apart is refused")
	}
	for _, c := range []struct {
		name    string
		further Block
		ok      bool
	}{
		{"before", ports(512, 1023), true},
		{"behind", ports(1536, 2047), true},
		{"of one port", ports(40000, 40000), true},
		{"the first one again", ports(1024, 1535), false},
		{"the second one again", ports(65024, 65535), false},
		{"the last port of the first one", ports(1535, 2047), false},
		{"the first port of the first one", ports(512, 1024), false},
		{"within the first one", ports(1100, 1200), false},
		{"around the first one", ports(1, 2047), false},
		{"with port 0", ports(0, 511), false},
		{"without a port", ports(2047, 1536), false},
		{"of another outside address", Block{outside.Next(), 1536, 2047}, false},
		{"of no outside address", Block{First: 1536, Last: 2047}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := two.With(c.further)
			want := []Block{ports(1024, 1535), ports(65024, 65535)}
			if c.ok {
				want = append(want, c.further)
			}
			if all := slices.Collect(got.All()); ok != c.ok || !slices.Equal(all, want) {
				t.Errorf("%v, %t; want %v, %t", all, ok, want, c.ok)
			}
			if two.Len() != 2 {
				t.Error("the blocks that it was made of have changed")
			}
		})
	}
}

func TestBlocksPorts(t *testing.T) {
	one := Blocks{Block: ports(1024, 1535)}
	two, _ := one.With(ports(512, 1023))
	if one.Ports() != "1024-1535" || two.Ports() != "1024-1535,512-1023" {
		t.Errorf("%s and %s", one.Ports(), two.Ports())
	}
}

// TestBlocks compares Blocks with a slice, over random blocks.
func TestBlocks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var list []Block
		var b Blocks
		for range 1 + rnd.IntN(6) {
			within := Port(1)<<rnd.IntN(16) - 1
			p := Port(rnd.IntN(1 << 16))
			x := ports(p&^within, p|within)
			common := slices.ContainsFunc(list, func(y Block) bool { return x.Contains(outside, y.First) || y.Contains(outside, x.First) })
			if len(list) == 0 {
				list, b = append(list, x), Blocks{Block: x}
				continue
			}
			more, ok := b.With(x)
			if ok == (common || x.First == 0) {
				t.Fatalf("%v with %v: %t", list, x, ok)
			}
			if ok {
				list, b = append(list, x), more
			}
		}
		if got := slices.Collect(b.All()); !slices.Equal(got, list) || b.Len() != len(list) || b.Newest() != list[len(list)-1] || b.Place() != list[0].Place() {
			t.Fatalf("%v, %d of them, newest %v, at %v; want %v", got, b.Len(), b.Newest(), b.Place(), list)
		}
		again := Blocks{Block: list[0]}
		for _, x := range list[1:] {
			again, _ = again.With(x)
		}
		if again != b {
			t.Fatalf("%v and %v are not equal", again, b)
		}
		for _, x := range list {
			if !b.Has(x) || b.Has(Block{outside, x.First, x.Last + 1}) || b.Has(Block{outside.Next(), x.First, x.Last}) {
				t.Fatalf("%v do not have %v, or another one", list, x)
			}
		}
		p := Port(rnd.IntN(1 << 16))
		if want := slices.ContainsFunc(list, func(x Block) bool { return x.Contains(outside, p) }); b.Contains(outside, p) != want || b.Contains(outside.Next(), p) {
			t.Fatalf("%v have port %d: %t, want %t", list, p, b.Contains(outside, p), want)
		}
	}
}

// TestBlocksRanges: blocks that adjoin each other are one range, in whichever order they
// came; a range is covered by its own whole blocks only.
func TestBlocksRanges(t *testing.T) {
	b := Blocks{Block: ports(1536, 2047)}
	for _, x := range []Block{ports(1024, 1535), ports(65024, 65535), ports(2048, 2559), ports(64512, 65023)} {
		var ok bool
		if b, ok = b.With(x); !ok {
			t.Fatalf("%v is refused", x)
		}
	}
	low, high := ports(1024, 2559), ports(64512, 65535)
	if got := slices.Collect(b.Ranges); !slices.Equal(got, []Block{low, high}) || b.Range() != high {
		t.Errorf("ranges %v, new sessions get %v", got, b.Range())
	}
	older := b.Older()
	if got := slices.Collect(older.Ranges); !slices.Equal(got, []Block{low, ports(65024, 65535)}) || older.Range() != low || b.Len() != 5 {
		t.Errorf("without the newest: ranges %v, new sessions get %v", got, older.Range())
	}
	for _, c := range []struct {
		r    Block
		want bool
	}{
		{low, true},
		{high, true},
		{ports(1024, 1535), true},
		{ports(1536, 2559), true},
		{ports(1024, 1534), false},
		{ports(1025, 2559), false},
		{ports(1024, 3071), false},
		{ports(64512, 65023), true},
		{Block{outside.Next(), 1024, 2559}, false},
		{ports(2047, 1536), false},
		{Block{}, false},
	} {
		if got := b.Covers(c.r); got != c.want {
			t.Errorf("%v is covered: %t", c.r, got)
		}
	}
}
