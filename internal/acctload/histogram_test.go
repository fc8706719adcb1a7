package acctload

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestHistogramAgainstSorting compares quantiles with those of all values.
func TestHistogramAgainstSorting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []float64{10, 1e4, 1e9, 1e17} {
		var whole, half Histogram
		var all []time.Duration
		for i := range 5000 {
			d := time.Duration(random.ExpFloat64() * scale / 10)
			all = append(all, d)
			if i%2 == 0 {
				half.Record(d)
			} else {
				whole.Record(d)
			}
		}
		whole.Add(&half)
		slices.Sort(all)
		for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
			want := all[max(0, int(q*5000)-1)]
			got := whole.Quantile(q)
			if got < want || float64(got) > float64(want)*(1+1.0/subBuckets)+1 {
				t.Errorf("scale %g, quantile %g: %d, want %d or 1.6%% more", scale, q, got, want)
			}
		}
		if whole.Max() != all[4999] || whole.Count() != 5000 {
			t.Errorf("max %v, count %d", whole.Max(), whole.Count())
		}
	}
}

func TestHistogramEdges(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	h.Record(-time.Second)
	h.Record(1<<63 - 1)
	if h.Quantile(0) != 0 || h.Quantile(1) != 1<<63-1 {
		t.Errorf("quantiles are %v and %v", h.Quantile(0), h.Quantile(1))
	}
	for bucket := range buckets - 1 {
		if top := topOf(bucket); bucketOf(top) != bucket || bucketOf(top+1) != bucket+1 {
			t.Fatalf("bucket %d does not end at %d", bucket, top)
		}
	}
}
