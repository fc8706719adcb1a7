package metrics

import (
	dto "github.com/prometheus/client_model/go"
)

// Totals are counts since the start, as a console shows their rates.
type Totals struct {
	Starts, Stops uint64 // accounting requests, recorded and answered

	// CutCounts has the removals whose gate closed within each of CutBounds, in seconds, and
	// after them all removals.
	CutBounds []float64
	CutCounts []uint64
}

// Totals returns the counts of all clients together.
func (m *Metrics) Totals() Totals {
	t := Totals{CutBounds: seconds}
	t.Starts = m.requestsBy.sum(Outcome{"start", "ok"})
	t.Stops = m.requestsBy.sum(Outcome{"stop", "ok"})
	var cuts dto.Metric
	if m.stopToCut.Write(&cuts) != nil {
		return t
	}
	for _, b := range cuts.GetHistogram().GetBucket() {
		t.CutCounts = append(t.CutCounts, b.GetCumulativeCount())
	}
	t.CutCounts = append(t.CutCounts, cuts.GetHistogram().GetSampleCount())
	return t
}

// sum returns the counts of a key under all names.
func (c *counterCache[K]) sum(key K) uint64 {
	var total float64
	for _, list := range *c.known.Load() {
		for _, k := range *list.Load() {
			var value dto.Metric
			if k.key == key && k.counter.Write(&value) == nil {
				total += value.GetCounter().GetValue()
			}
		}
	}
	return uint64(total)
}
