package portuse_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/portuse"
)

// TestCounts compares counts of random numbers of ports with the numbers themselves.
func TestCounts_NAT39(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var c portuse.Counts
	var ports []int
	for range 5000 {
		n := 1 + rng.IntN(1<<(1+rng.IntN(16)))
		c.Add(n)
		ports = append(ports, n)
	}
	for range 2000 { // some grow
		i := rng.IntN(len(ports))
		more := min(ports[i]+rng.IntN(300), 1<<16)
		c.Move(ports[i], more)
		ports[i] = more
	}
	c.Add(0)
	slices.Sort(ports)
	sum := uint64(0)
	for _, n := range ports {
		sum += uint64(n)
	}
	if c.Users() != len(ports) || c.Sum() != sum {
		t.Errorf("%d subscribers with %d ports, want %d with %d", c.Users(), c.Sum(), len(ports), sum)
	}
	for size := 1; size <= 1<<16; size *= 2 {
		up, _ := slices.BinarySearch(ports, size+1)
		if got := c.Above(size); got != len(ports)-up {
			t.Errorf("%d above %d, want %d", got, size, len(ports)-up)
		}
		if got := c.UpTo()[float64(size)]; got != uint64(up) {
			t.Errorf("%d up to %d, want %d", got, size, up)
		}
	}
	for _, p := range []float64{1, 50, 90, 99, 100} {
		want := ports[int(p/100*float64(len(ports)))-1]
		if got := c.Percentile(p); got < want || got > want+want/8+1 {
			t.Errorf("percentile %g is %d, want %d to an eighth more", p, got, want)
		}
	}
	var none portuse.Counts
	if none.Percentile(50) != 0 {
		t.Error("a percentile of nobody")
	}
}

var began = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// observation has 10,000 bindings, of which five used 400 ports, and 20 used 200.
func observation() *portuse.Observation {
	o := &portuse.Observation{Since: began, Until: began.Add(8 * 24 * time.Hour), Bindings: 10_000, BlockSize: 512, Live: 900}
	for i := range 9_000 { // the others used none
		switch {
		case i < 5:
			o.Peaks.Add(400)
		case i < 25:
			o.Peaks.Add(200)
		default:
			o.Peaks.Add(60)
		}
	}
	return o
}

// pool has 1000 blocks of 512 ports.
func pool(size int) int { return 1000 * 512 / size }

func TestAdvise_NAT39(t *testing.T) {
	for name, one := range map[string]struct {
		change func(*portuse.Observation)
		target float64
		pool   func(int) int
		want   int
		notes  []string // each is part of a note
	}{
		"smallest below the target": {target: 0.001, want: 256},
		"stricter":                  {target: 0.0004, want: 512},
		"looser":                    {target: 0.01, want: 64},
		"exactly the target":        {target: 0.0025, want: 64, change: func(o *portuse.Observation) { o.Live = 0 }},
		"nobody may overflow":       {target: 0, want: 512},
		"short": {
			target: 0.001, want: 256, notes: []string{"observed for 2h0m0s only"},
			change: func(o *portuse.Observation) { o.Until = began.Add(2 * time.Hour) },
		},
		"few": {
			target: 0.0001, want: 512, notes: []string{"10000 bindings are few", "30000 without"},
		},
		"full": {
			target: 0.0001, want: 1024, notes: []string{"are few", "3 bindings filled their block"},
			change: func(o *portuse.Observation) {
				o.Full = 3
				for range 3 {
					o.Peaks.Move(400, 700)
				}
			},
		},
		"too many subscribers": {
			target: 0.001, want: 256, notes: []string{"hold 2000 subscribers", "2500 have a block"},
			change: func(o *portuse.Observation) { o.Live = 2500 },
		},
		"nothing observed": {
			target: 0.001, notes: []string{"no binding was observed"},
			change: func(o *portuse.Observation) { *o = portuse.Observation{BlockSize: 512} },
		},
		"no size": {
			target: 0.0001, notes: []string{"no block size meets"},
			pool: func(size int) int { return max(0, 256-size) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := observation()
			if one.change != nil {
				one.change(o)
			}
			if one.pool == nil {
				one.pool = pool
			}
			a := portuse.Advise(o, one.target, one.pool)
			if a.Recommended != one.want {
				t.Errorf("recommended %d, want %d", a.Recommended, one.want)
			}
			all := strings.Join(a.Notes, "\n")
			for _, part := range one.notes {
				if !strings.Contains(all, part) {
					t.Errorf("no note says %q: %q", part, a.Notes)
				}
			}
			if one.notes == nil && len(a.Notes) > 0 {
				t.Errorf("notes %q", a.Notes)
			}
			for _, s := range a.Sizes {
				if want := o.Full > 0 && s.BlockSize >= 512; s.LowerBound != want {
					t.Errorf("%d is a lower bound: %v", s.BlockSize, s.LowerBound)
				}
				if s.BlockSize == 256 && o.Bindings > 0 && (s.Overflowed != 5 || s.Share != 0.0005) {
					t.Errorf("overflow of 256 is %+v", s)
				}
			}
		})
	}
}
