package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// History is the state of the history of the NAT.
type History struct {
	Records map[string]uint64    // since the start, by kind
	Gaps    map[string]uint64    // since the start, by group
	Through map[string]time.Time // everything until then is in it, by group
	Octets  uint64
	Up      bool // it is kept as it should be
}

// HistorySource has the state of the history.
type HistorySource interface{ History() History }

var (
	historyRecords = desc("history_records_total", "Events of the NAT log that the history has stored since the start, by kind: allocated, released, or interim for blocks in service at its beginning and behind a gap.", "kind")
	historyGaps    = desc("history_gaps_total", "Times that the history missed events of a group's NAT log.", "group")
	historyThrough = desc("history_through_timestamp_seconds", "Everything until this time is in the history.", "group")
	historyOctets  = desc("history_bytes", "Octets of the files of the history.")
	historyUp      = desc("history_up", "1 while the history is written, and its files are kept in order, else 0: the NAT log waits in Redis.")
)

// historyKinds are the kinds of events that a history stores.
var historyKinds = []string{"allocated", "released", "interim"}

// historyCollector reads the source at each scrape.
type historyCollector struct{ source HistorySource }

// Describe implements prometheus.Collector.
func (historyCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{historyRecords, historyGaps, historyThrough, historyOctets, historyUp} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c historyCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.source.History()
	for _, kind := range historyKinds {
		count(ch, historyRecords, h.Records[kind], kind)
	}
	for group, n := range h.Gaps {
		count(ch, historyGaps, n, group)
	}
	for group, at := range h.Through {
		ch <- prometheus.MustNewConstMetric(historyThrough, prometheus.GaugeValue, float64(at.UnixMilli())/1e3, group)
	}
	ch <- prometheus.MustNewConstMetric(historyOctets, prometheus.GaugeValue, float64(h.Octets))
	ch <- prometheus.MustNewConstMetric(historyUp, prometheus.GaugeValue, float64(number(h.Up)))
}

// WatchHistory adds the metrics of the history.
func (m *Metrics) WatchHistory(s HistorySource) { m.registry.MustRegister(historyCollector{s}) }
