package console

import (
	"math"
	"testing"
	"time"
)

var historyBegin = time.Unix(1_700_000_000, 0)

// TestRates: present rates are those of the last samples, and each minute of the last hour has its
// own; the memory of older ones is used again.
func TestRates(t *testing.T) {
	t.Parallel()
	var h totalsHistory
	if now, minutes := h.rates(); now != (eventRates{}) || len(minutes) != 0 {
		t.Errorf("rates without samples: %v, %v", now, minutes)
	}
	total := Totals{}
	for i := range 2 * keptSamples {
		perSecond := uint64(2)
		if i > 2*keptSamples-3 { // the two newest intervals
			perSecond = 10
		}
		total.Starts += perSecond * uint64(sampleEvery/time.Second)
		total.Stops += uint64(sampleEvery / time.Second)
		h.add(historyBegin.Add(time.Duration(i)*sampleEvery), total)
	}
	now, minutes := h.rates()
	if now != (eventRates{10, 1}) {
		t.Errorf("present rates are %v", now)
	}
	if len(minutes) != 60 {
		t.Errorf("%d minutes", len(minutes))
	}
	for i, m := range minutes[:len(minutes)-1] {
		if m != (eventRates{2, 1}) {
			t.Errorf("minute %d has %v", i, m)
		}
	}
	if last := minutes[len(minutes)-1]; math.Abs(last.starts-10./3) > 1e-9 {
		t.Errorf("the last minute has %v", last)
	}
	if len(h.samples) != keptSamples {
		t.Errorf("%d samples are kept", len(h.samples))
	}
}

// TestCuts: percentiles are of the last hour, and even within a bucket.
func TestCuts(t *testing.T) {
	t.Parallel()
	bounds := []float64{0.001, 0.01, 0.1}
	for _, c := range []struct {
		name          string
		first, last   []uint64
		removals      int
		p50, p90, p99 time.Duration
	}{
		{"none", []uint64{5, 5, 5, 5}, []uint64{5, 5, 5, 5}, 0, 0, 0, 0},
		{"all in the first bucket", []uint64{0, 0, 0, 0}, []uint64{100, 100, 100, 100}, 100, 500 * time.Microsecond, 900 * time.Microsecond, 990 * time.Microsecond},
		{"those before the hour do not count", []uint64{100, 100, 100, 100}, []uint64{100, 110, 110, 110}, 10, 5500 * time.Microsecond, 9100 * time.Microsecond, 9910 * time.Microsecond},
		{"slower than the last bound", []uint64{0, 0, 0, 0}, []uint64{50, 50, 50, 100}, 100, time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},
		{"the first sample had no histogram", nil, []uint64{2, 2, 2, 2}, 2, 500 * time.Microsecond, 900 * time.Microsecond, 990 * time.Microsecond},
	} {
		var h totalsHistory
		h.add(historyBegin, Totals{CutBounds: bounds, CutCounts: c.first})
		h.add(historyBegin.Add(time.Minute), Totals{CutBounds: bounds, CutCounts: c.last})
		got := h.cuts()
		if got.removals != c.removals || got.over != time.Minute || got.most != 100*time.Millisecond {
			t.Errorf("%s: %+v", c.name, got)
		}
		for name, p := range map[string][2]time.Duration{"p50": {got.p50, c.p50}, "p90": {got.p90, c.p90}, "p99": {got.p99, c.p99}} {
			if d := p[0] - p[1]; d > time.Microsecond || d < -time.Microsecond {
				t.Errorf("%s: %s is %v, want %v", c.name, name, p[0], p[1])
			}
		}
	}
}

// TestCurve: a curve begins at the left and ends at the right, and stays in its box.
func TestCurve(t *testing.T) {
	t.Parallel()
	if curveOf(make([]eventRates, 1)) != nil {
		t.Error("one minute has a curve")
	}
	c := curveOf([]eventRates{{0, 4}, {2, 0}, {8, 1}})
	if c.Starts != "0,58 150,44 300,2" || c.Stops != "0,30 150,58 300,51" {
		t.Errorf("%+v", c)
	}
}
