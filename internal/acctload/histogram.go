package acctload

import (
	"math/bits"
	"time"
)

// Each power of two of nanoseconds is split evenly into subBuckets, so that a
// value is known to 1/64 of itself, 1.6 %.
const (
	subBits    = 6
	subBuckets = 1 << subBits
	buckets    = (64 - subBits + 1) * subBuckets
)

// A Histogram counts durations in buckets that widen with the value. Recording
// allocates nothing. The zero value is empty and ready.
type Histogram struct {
	counts [buckets]uint64
	count  uint64
	max    time.Duration
}

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.count++
	h.max = max(h.max, d)
}

// Add counts everything that other has counted.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.count += other.count
	h.max = max(h.max, other.max)
}

// Count returns the number of recorded durations.
func (h *Histogram) Count() uint64 { return h.count }

// Max returns the longest duration, exactly; 0 when there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the duration that a share q, 0 to 1, of all durations do not
// exceed: at most 1.6 % above the true value, and never below it. It is 0 when
// nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	want := uint64(q * float64(h.count))
	if float64(want) < q*float64(h.count) {
		want++
	}
	want = max(want, 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= want && n > 0 {
			return min(time.Duration(topOf(i)), h.max)
		}
	}
	return h.max
}

// bucketOf numbers the buckets by value: one each below subBuckets, then
// subBuckets for every further power of two.
func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// topOf is the largest value of a bucket.
func topOf(bucket int) uint64 {
	if bucket < 2*subBuckets {
		return uint64(bucket)
	}
	shift := bucket>>subBits - 1
	return uint64(bucket-shift<<subBits+1)<<shift - 1
}
