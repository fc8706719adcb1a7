package lsn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// growingPool has 2,016 blocks of 512 ports, on 16 addresses.
func growingPool(maxBlocks int) GroupConfig {
	return GroupConfig{
		Name: "g", Inside: prefixes("100.64.0.0/10"), Outside: prefixes("198.51.100.0/28"),
		FirstPort: 1024, LastPort: 65535, BlockSize: 512, MaxBlocks: maxBlocks, Hold: 120 * time.Second,
	}
}

// mix is a population that keeps a share of the pool in use: each second a subscriber comes
// or goes, or one of those that grow has a block more or less.
type mix struct {
	use   float64 // of the pool's blocks
	heavy int     // of so many subscribers, one grows at all
	max   int     // blocks of a subscriber
}

// growths plays a mix, and counts the growths once the pool is in use as wanted, those of
// them that were in place, and those that were refused.
func (x mix) growths(t *testing.T, seed uint64) (all, inPlace, refused int) {
	t.Helper()
	e, err := New([]GroupConfig{growingPool(x.max)})
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 7))
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := began
	var online []netip.Addr
	next := netip.MustParseAddr("100.64.0.1")
	change := func() {
		a := online[rnd.IntN(len(online))]
		b, ok := e.Live("g", a)
		switch n := b.Len(); {
		case !ok, int(a.As4()[3])%x.heavy != 0:
		case n == x.max, n > 1 && rnd.IntN(2) == 0:
			if _, _, err := e.Shrink("g", a, now); err != nil {
				t.Fatal(err)
			}
		default:
			g, err := e.Grow("g", a, b.Range(), now)
			switch {
			case now.Sub(began) < 4*time.Hour: // the pool fills
			case err != nil:
				refused++
			case g.InPlace():
				all, inPlace = all+1, inPlace+1
			default:
				all++
			}
		}
	}
	for range 12 * 3600 {
		now = now.Add(time.Second)
		e.Advance(now, nil, nil)
		u := e.Usage()[0]
		switch {
		case len(online) > 0 && rnd.IntN(2) == 0:
			change()
		case float64(u.Used) < x.use*float64(u.Total):
			if _, err := e.Allocate("g", nat.Holder{Inside: next, Identity: next.String()}, now); err == nil {
				online = append(online, next)
			} else if !errors.Is(err, ErrExhausted) {
				t.Fatal(err)
			}
			next = next.Next()
		default:
			i := rnd.IntN(len(online))
			if _, err := e.Cut("g", online[i], now); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Hold("g", online[i], now); err != nil {
				t.Fatal(err)
			}
			online = slices.Delete(online, i, i+1)
		}
	}
	if err := e.Check(); err != nil {
		t.Error(err)
	}
	return all, inPlace, refused
}

// TestGrowthInPlace_NAT35: with 70 % of the pool in use, at least 90 % of random growths are
// in place. The other mixes are the curve of docs/decisions/0040.
func TestGrowthInPlace_NAT35(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mix
		least int // percent
	}{
		{mix{0.70, 1, 2}, 90},
		{mix{0.50, 1, 2}, 95},
		{mix{0.80, 1, 2}, 60},
		{mix{0.90, 1, 2}, 20},
		{mix{0.70, 1, 4}, 75},
		{mix{0.50, 10, 2}, 95},
		{mix{0.70, 10, 2}, 70},
		{mix{0.90, 10, 2}, 15},
	} {
		all, inPlace, refused := c.growths(t, 1)
		share := fmt.Sprintf("%2.0f %% in use, 1 of %2d grows, up to %d blocks: %5d growths, %3d %% in place, %d refused",
			100*c.use, c.heavy, c.max, all, 100*inPlace/max(all, 1), refused)
		t.Log(share)
		if all < 800 || 100*inPlace < c.least*all {
			t.Errorf("%s; want %d %%", share, c.least)
		}
	}
}

// TestGrowthSwitched: a reload that lets bindings grow, or no longer, keeps every binding,
// every hold and every free block.
func TestGrowthSwitched(t *testing.T) {
	e, err := New([]GroupConfig{growingPool(3)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var before []nat.Binding
	a := netip.MustParseAddr("100.64.0.1")
	for i := range 600 {
		b, err := e.Allocate("g", nat.Holder{Inside: a, Identity: a.String()}, now)
		if err != nil {
			t.Fatal(err)
		}
		for range i % 4 {
			_, _ = e.Grow("g", a, b.Range(), now)
		}
		if i%5 == 0 {
			_, _, _ = e.Shrink("g", a, now)
		}
		if i%7 == 0 {
			_, _ = e.Cut("g", a, now)
			_, _ = e.Hold("g", a, now.Add(-time.Duration(i)*time.Second))
		}
		a = a.Next()
	}
	e.Advance(now, nil, nil)
	list := func() (all []nat.Binding) {
		e.Bindings("g", func(b nat.Binding) bool { all = append(all, b); return true })
		return sorted(all)
	}
	before, usage := list(), fmt.Sprint(e.Usage())
	for _, maxBlocks := range []int{1, 2, 0, 3} {
		if err := e.Reconfigure([]GroupConfig{growingPool(maxBlocks)}); err != nil {
			t.Fatal(err)
		}
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(e.Usage()); got != usage || !slices.Equal(list(), before) {
			t.Errorf("with up to %d blocks: %s, want %s; or the bindings changed", maxBlocks, got, usage)
		}
		_, err := e.Grow("g", netip.MustParseAddr("100.64.0.2"), nat.Block{}, now)
		if maxBlocks < 2 && !errors.Is(err, ErrMaxBlocks) {
			t.Errorf("with up to %d blocks one grows: %v", maxBlocks, err)
		}
	}
}
