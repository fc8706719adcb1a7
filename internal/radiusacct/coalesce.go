package radiusacct

import "time"

const (
	// sustainedRate is the requests a second from which on a receiver lets them
	// gather: they come more than one in the time that it takes to be woken, to wake
	// a worker, and to go to Redis and back with what little there is.
	sustainedRate = 8000
	// rateTime is how long a rate is measured.
	rateTime = 10 * time.Millisecond
	// gatherTime is how long requests gather: little beside the time that one takes
	// under such a load anyway.
	gatherTime = time.Millisecond
)

// A coalescer says whether to let requests gather before the next are read, as
// network cards do with interrupts: what comes alone is served at once; under load
// one reading, one trip to Redis and one sending serve many. Only a client that was
// alone for companyTime waits, and for nothing but its own requests: what others
// send, sound or not, delays no good client. The zero value is ready.
type coalescer struct {
	since     time.Time    // of the present measurement
	count     int          // requests since then
	sustained bool         // by the measurement before
	peer      *clientState // whose requests come
	company   time.Time    // when it was last not alone
}

// note takes a datagram into account: whose it is, nil for nobody's, and whether it
// is a sound request.
func (m *coalescer) note(p *clientState, sound bool, now time.Time) {
	if p != m.peer || !sound {
		m.peer, m.company = p, now
	}
	m.count++
}

// pause is how long to wait after n datagrams were read.
func (m *coalescer) pause(n int, now time.Time) time.Duration {
	if past := now.Sub(m.since); past >= rateTime {
		m.sustained = float64(m.count) >= sustainedRate*past.Seconds()
		m.since, m.count = now, 0
	}
	if !m.sustained || n >= receiveBatch || now.Sub(m.company) < companyTime {
		return 0
	}
	return gatherTime
}
