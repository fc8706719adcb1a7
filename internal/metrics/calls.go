package metrics

import "github.com/prometheus/client_golang/prometheus"

// Calls holds the metrics of the control plane's connections, streams and files. Its
// methods may be called concurrently.
type Calls struct {
	connections *prometheus.GaugeVec
	closed      *prometheus.CounterVec
	turnedAway  *prometheus.CounterVec
	streams     *prometheus.GaugeVec
	ended       *prometheus.CounterVec
	refused     *prometheus.CounterVec
	files       *prometheus.GaugeVec
}

func newCalls() *Calls {
	return &Calls{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sessiond_grpc_connections",
			Help: "gRPC connections that are open.",
		}, nil),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_grpc_connections_closed_total",
			Help: "gRPC connections that ended, by cause.",
		}, []string{"cause"}),
		turnedAway: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_grpc_connections_refused_total",
			Help: "gRPC connections that were not served, by cause.",
		}, []string{"cause"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sessiond_grpc_streams",
			Help: "gRPC streams that are open, by method.",
		}, []string{"method"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_grpc_streams_ended_total",
			Help: "gRPC streams that ended, by method and reason.",
		}, []string{"method", "reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_grpc_streams_refused_total",
			Help: "gRPC streams that were not served, by method and cause.",
		}, []string{"method", "cause"}),
		files: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sessiond_key_files_last_reload_successful",
			Help: "1 if the files of certificates, client CAs and tokens are in force as they are, 0 if some cannot be used and earlier contents are in force, by kind.",
		}, []string{"kind"}),
	}
}

func (c *Calls) all() []prometheus.Collector {
	return []prometheus.Collector{c.connections, c.closed, c.turnedAway, c.streams, c.ended, c.refused, c.files}
}

func (c *Calls) expect(e *Expected) {
	c.connections.WithLabelValues()
	for _, cause := range e.CallClosings {
		c.closed.WithLabelValues(cause)
	}
	for _, cause := range e.CallRefusals {
		c.turnedAway.WithLabelValues(cause)
	}
	for _, method := range e.Streams {
		c.streams.WithLabelValues(method)
		for _, end := range e.StreamEnds {
			c.ended.WithLabelValues(method, end)
		}
		for _, cause := range e.CallRefusals {
			c.refused.WithLabelValues(method, cause)
		}
	}
}

// ConnectionOpened counts a new connection.
func (c *Calls) ConnectionOpened() { c.connections.WithLabelValues().Inc() }

// ConnectionClosed counts the end of a connection.
func (c *Calls) ConnectionClosed(cause string) {
	c.connections.WithLabelValues().Dec()
	c.closed.WithLabelValues(cause).Inc()
}

// ConnectionRefused counts one connection that was not served.
func (c *Calls) ConnectionRefused(cause string) { c.turnedAway.WithLabelValues(cause).Inc() }

// StreamOpened counts a new stream.
func (c *Calls) StreamOpened(method string) { c.streams.WithLabelValues(method).Inc() }

// StreamEnded counts the end of a stream.
func (c *Calls) StreamEnded(method, end string) {
	c.streams.WithLabelValues(method).Dec()
	c.ended.WithLabelValues(method, end).Inc()
}

// StreamRefused counts one stream that was not served.
func (c *Calls) StreamRefused(method, cause string) { c.refused.WithLabelValues(method, cause).Inc() }

// FilesUsable notes whether all files of a kind can be used.
func (c *Calls) FilesUsable(kind string, usable bool) {
	value := 0.0
	if usable {
		value = 1
	}
	c.files.WithLabelValues(kind).Set(value)
}
