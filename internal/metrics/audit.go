package metrics

import "github.com/prometheus/client_golang/prometheus"

// auditCounters are the metrics of logs that must have no gap: the audit trails, and that of the
// NAT.
type auditCounters struct {
	unwritten prometheus.Counter
	lost      *prometheus.CounterVec
	gaps      *prometheus.CounterVec // of the NAT log
}

func newAuditCounters() auditCounters {
	return auditCounters{
		gaps: newExportGaps(),
		unwritten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sessiond_audit_write_failures_total",
			Help: "Changes that were refused because their audit entry could not be written, and outcomes that are not in the audit trail.",
		}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_audit_sink_lost_total",
			Help: "Audit entries that were removed from Redis before they were copied, by sink.",
		}, []string{"sink"}),
	}
}

// AuditUnwritten counts an audit entry that could not be written.
func (m *Metrics) AuditUnwritten() { m.audit.unwritten.Inc() }

// AuditLost counts audit entries that were removed before the sink wrote them.
func (m *Metrics) AuditLost(sink string, entries int) {
	m.audit.lost.WithLabelValues(sink).Add(float64(entries))
}

// ExpectSinks creates the counters of the sinks, at 0.
func (m *Metrics) ExpectSinks(sinks ...string) {
	for _, sink := range sinks {
		m.audit.lost.WithLabelValues(sink)
	}
}
