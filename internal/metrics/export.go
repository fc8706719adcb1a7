package metrics

import "github.com/prometheus/client_golang/prometheus"

// Export is the state of one collector of the NAT log.
type Export struct {
	Sink        string // protocol and address
	Sent        uint64 // since the start
	Dropped     uint64 // since the spool was made
	SpoolOctets uint64
	Up          bool // the last attempt succeeded
}

// ExportSource has the states of all collectors.
type ExportSource interface{ Exports() []Export }

var (
	exported    = desc("export_records_total", "Events of the NAT log, by collector and result: sent, with those that were sent again, or dropped, because the spool was full or its disk damaged.", "sink", "result")
	exportSpool = desc("export_spool_bytes", "Octets of events that wait for a collector.", "sink")
	exportUp    = desc("export_up", "1 while a collector of the NAT log is reached, else 0: events wait in its spool.", "sink")
)

// exportCollector reads the source at each scrape.
type exportCollector struct{ source ExportSource }

// Describe implements prometheus.Collector.
func (exportCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{exported, exportSpool, exportUp} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c exportCollector) Collect(ch chan<- prometheus.Metric) {
	for _, e := range c.source.Exports() {
		count(ch, exported, e.Sent, e.Sink, "sent")
		count(ch, exported, e.Dropped, e.Sink, "dropped")
		ch <- prometheus.MustNewConstMetric(exportSpool, prometheus.GaugeValue, float64(e.SpoolOctets), e.Sink)
		ch <- prometheus.MustNewConstMetric(exportUp, prometheus.GaugeValue, float64(number(e.Up)), e.Sink)
	}
}

// WatchExports adds the metrics of the collectors of the NAT log.
func (m *Metrics) WatchExports(s ExportSource) { m.registry.MustRegister(exportCollector{s}) }

func newExportGaps() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sessiond_export_gaps_total",
		Help: "Times that events of the NAT log were lost before a collector's spool had them, by group.",
	}, []string{"group"})
}

// ExportGap counts a gap in a group's NAT log, for one collector.
func (m *Metrics) ExportGap(group string) { m.audit.gaps.WithLabelValues(group).Inc() }

// ExpectExport creates the counters of groups, at 0.
func (m *Metrics) ExpectExport(groups ...string) {
	for _, group := range groups {
		m.audit.gaps.WithLabelValues(group)
	}
}
