package console

import (
	"slices"
	"sync"
	"time"
)

// totalsHistory keeps samples of Totals for rates and percentiles of the last hour. Its size does
// not depend on load.
type totalsHistory struct {
	mu      sync.Mutex
	samples []totalsSample // the newest last
}

// totalsSample is Totals at a time.
type totalsSample struct {
	at time.Time
	Totals
}

const (
	keptFor     = time.Hour
	keptSamples = int(keptFor/sampleEvery) + 1
)

// add adds a sample.
func (h *totalsHistory) add(at time.Time, t Totals) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) == keptSamples {
		h.samples = slices.Delete(h.samples, 0, 1)
	}
	h.samples = append(h.samples, totalsSample{at, t})
}

// eventRates are numbers of requests a second.
type eventRates struct{ starts, stops float64 }

// recently is the time over which present rates are taken: two samples.
const recently = 2 * sampleEvery

// rates returns the present rates, and those of each minute of the last hour, the newest last.
func (h *totalsHistory) rates() (now eventRates, minutes []eventRates) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.samples)
	if n == 0 {
		return now, nil
	}
	newest := h.samples[n-1]
	now = between(h.samples[max(0, n-1-int(recently/sampleEvery))], newest)
	const perMinute = int(time.Minute / sampleEvery)
	for end := n - 1; end > 0; end -= perMinute {
		minutes = append(minutes, between(h.samples[max(0, end-perMinute)], h.samples[end]))
	}
	slices.Reverse(minutes)
	return now, minutes
}

// between returns the rates between two samples.
func between(a, b totalsSample) eventRates {
	seconds := b.at.Sub(a.at).Seconds()
	if seconds <= 0 {
		return eventRates{}
	}
	return eventRates{float64(b.Starts-a.Starts) / seconds, float64(b.Stops-a.Stops) / seconds}
}

// cutTimes are the times from the end of a record to its closed gate, in the last hour.
type cutTimes struct {
	removals int
	over     time.Duration // the time that is covered, an hour at most

	p50, p90, p99 time.Duration // at most the largest bound, which means it or more
	most          time.Duration // the largest bound
}

// cuts returns the times to cut of the last hour.
func (h *totalsHistory) cuts() cutTimes {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) == 0 {
		return cutTimes{}
	}
	first, last := h.samples[0], h.samples[len(h.samples)-1]
	counts := make([]uint64, len(last.CutCounts))
	for i, n := range last.CutCounts {
		if counts[i] = n; i < len(first.CutCounts) {
			counts[i] -= first.CutCounts[i]
		}
	}
	t := cutTimes{over: last.at.Sub(first.at)}
	if len(counts) == 0 || len(counts) != len(last.CutBounds)+1 {
		return t
	}
	t.removals = int(counts[len(counts)-1])
	t.most = inSeconds(last.CutBounds[len(last.CutBounds)-1])
	t.p50 = percentile(0.5, last.CutBounds, counts)
	t.p90 = percentile(0.9, last.CutBounds, counts)
	t.p99 = percentile(0.99, last.CutBounds, counts)
	return t
}

// percentile returns the q-quantile of a histogram with cumulative counts, which is taken to be even
// within each bucket, as histogram_quantile of Prometheus does.
func percentile(q float64, bounds []float64, counts []uint64) time.Duration {
	rank := q * float64(counts[len(counts)-1])
	if rank == 0 {
		return 0
	}
	var low float64
	var below uint64
	for i, bound := range bounds {
		if float64(counts[i]) >= rank {
			share := (rank - float64(below)) / float64(counts[i]-below)
			return inSeconds(low + (bound-low)*share)
		}
		low, below = bound, counts[i]
	}
	return inSeconds(low)
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
