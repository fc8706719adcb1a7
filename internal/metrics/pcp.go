package metrics

import "github.com/prometheus/client_golang/prometheus"

// PCP counts the requests of clients of PCP and NAT-PMP. Its methods may be called concurrently.
type PCP struct {
	requests   *prometheus.CounterVec
	mismatches *prometheus.CounterVec
	announced  *prometheus.CounterVec
}

// PCPLabels are the label values of PCP that are known in advance.
type PCPLabels struct{ Opcodes, Results, Announcements, Groups []string }

// NewPCP adds the metrics of a server of PCP to m, at 0.
func NewPCP(m *Metrics, l PCPLabels) *PCP {
	p := &PCP{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_pcp_requests_total",
			Help: "Datagrams for the server of PCP and NAT-PMP, by opcode, and by the result code of the answer or why there was none.",
		}, []string{"opcode", "result"}),
		mismatches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_pcp_nonce_mismatches_total",
			Help: "Requests of PCP for a mapping that has another nonce, by group: refused where its nonce is strict, granted where it is lenient.",
		}, []string{"group"}),
		announced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_pcp_announcements_total",
			Help: "Messages of PCP and NAT-PMP that no request asked for, by kind.",
		}, []string{"kind"}),
	}
	m.registry.MustRegister(p.requests, p.mismatches, p.announced)
	for _, opcode := range l.Opcodes {
		for _, result := range l.Results {
			p.requests.WithLabelValues(opcode, result)
		}
	}
	for _, kind := range l.Announcements {
		p.announced.WithLabelValues(kind)
	}
	for _, group := range l.Groups {
		p.mismatches.WithLabelValues(group)
	}
	return p
}

// Request counts a datagram.
func (p *PCP) Request(opcode, result string) { p.requests.WithLabelValues(opcode, result).Inc() }

// NonceMismatch counts a request for a mapping that has another nonce.
func (p *PCP) NonceMismatch(group string) { p.mismatches.WithLabelValues(group).Inc() }

// Announced counts a message that no request asked for.
func (p *PCP) Announced(kind string) { p.announced.WithLabelValues(kind).Inc() }
