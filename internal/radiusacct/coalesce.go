package radiusacct

import "time"

const (
	// sustainedRate is the number of requests a second from which on a receiver coalesces.
	// Then more than one request comes in the time that a single one takes to wake the
	// receiver and a worker and to go to Redis and back.
	sustainedRate = 8000
	// rateTime is the time over which the rate is measured.
	rateTime = 10 * time.Millisecond
	// gatherTime is the time that requests gather: little compared to the latency of a
	// request under such a load.
	gatherTime = time.Millisecond
)

// A coalescer decides whether to let requests gather before the next read, as
// network cards do with interrupts. A single request is served at once; under
// load one read, one round trip to Redis and one send serve many requests. Only
// a client that has been the only sender for quietTime waits, and only for its
// own requests: datagrams of other senders, sound or not, delay no good client.
// The zero value is ready.
type coalescer struct {
	since     time.Time    // begin of the present measurement
	count     int          // requests since then
	sustained bool         // by the measurement before
	peer      *clientState // client of the latest requests
	shared    time.Time    // time of the latest change of client, or unsound datagram
}

// note records a datagram: its client, nil for none, and whether it is a sound request.
func (m *coalescer) note(p *clientState, sound bool, now time.Time) {
	if p != m.peer || !sound {
		m.peer, m.shared = p, now
	}
	m.count++
}

// pause returns the time to wait after a read of n datagrams.
func (m *coalescer) pause(n int, now time.Time) time.Duration {
	if past := now.Sub(m.since); past >= rateTime {
		m.sustained = float64(m.count) >= sustainedRate*past.Seconds()
		m.since, m.count = now, 0
	}
	if !m.sustained || n >= receiveBatch || now.Sub(m.shared) < quietTime {
		return 0
	}
	return gatherTime
}
