package control

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// debt tracks replies that a connection's peer asked for and has not taken. gRPC keeps the
// reply to a call until its peer accepts it, and reports nothing. The frames show it: the
// handler of the call has returned, and the end of the call was not sent.
//
// gRPC keeps some state of a call that its peer resets until its next write, without a bound:
// a million such calls in 8 s took 650 MB. So debt slows down reading from a peer that resets
// many calls.
type debt struct {
	connection *connection
	limit      time.Duration // longest time in which a peer may owe without taking anything

	mu       sync.Mutex
	asked    map[uint32]struct{} // received calls whose end was not sent
	newest   uint32              // stream number of the newest
	handled  int                 // calls in their handlers
	progress time.Time           // time of the last end of a call sent, or of the begin of the debt
	look     *time.Timer         // runs while there is a debt, else nil
	over     bool                // the connection has ended
	paid     time.Time           // earliest time at which the peer's resets are within their rate
	ended    chan struct{}       // closed when the connection ends
}

// Calls that the peer of a connection may reset before their end: in a second, and at once.
const resetsPerSecond, resetsAtOnce = 100, 100

func newDebt(c *connection, limit time.Duration) *debt {
	return &debt{connection: c, limit: limit, asked: map[uint32]struct{}{}, progress: time.Now(), ended: make(chan struct{})}
}

// begin and end mark the begin and end of a call's handler.
func (d *debt) begin() { d.count(1) }
func (d *debt) end()   { d.count(-1) }

func (d *debt) count(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handled += n
	d.noteLocked()
}

// came processes the head of a received frame.
func (d *debt) came(f frameHead) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case f.kind == http2.FrameHeaders && f.stream > d.newest:
		d.newest = f.stream
		d.asked[f.stream] = struct{}{}
	case f.kind == http2.FrameRSTStream:
		if _, owed := d.asked[f.stream]; owed {
			delete(d.asked, f.stream)
			d.resetLocked(time.Now())
		}
	default:
		return
	}
	d.noteLocked()
}

// resetLocked counts one reset against the rate.
func (d *debt) resetLocked(now time.Time) {
	if earliest := now.Add(-resetsAtOnce * time.Second / resetsPerSecond); d.paid.Before(earliest) {
		d.paid = earliest
	}
	d.paid = d.paid.Add(time.Second / resetsPerSecond)
}

// rest waits until the peer's resets are within their rate, or the connection ends.
func (d *debt) rest() {
	d.mu.Lock()
	wait := time.Until(d.paid)
	d.mu.Unlock()
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.ended:
	}
}

// went processes the head of a sent frame.
func (d *debt) went(f frameHead) {
	if f.kind != http2.FrameRSTStream && (f.kind != http2.FrameHeaders || !f.flags.Has(http2.FlagHeadersEndStream)) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, owed := d.asked[f.stream]; owed {
		delete(d.asked, f.stream)
		d.progress = time.Now()
		d.noteLocked()
	}
}

func (d *debt) noteLocked() {
	switch owes := len(d.asked) > d.handled && !d.over; {
	case !owes && d.look != nil:
		d.look.Stop()
		d.look = nil
	case owes && d.look == nil:
		d.progress = time.Now()
		d.look = time.AfterFunc(d.limit, d.collect)
	}
}

// collect ends the connection if its peer took nothing for too long, or else
// restarts the timer.
func (d *debt) collect() {
	d.mu.Lock()
	if d.look == nil {
		d.mu.Unlock()
		return
	}
	if rest := d.limit - time.Since(d.progress); rest > 0 {
		d.look.Reset(rest)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.connection.end(ConnectionStalled)
}

// forget stops the timer and the waits when the connection ends. It is called once.
func (d *debt) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	close(d.ended)
	d.noteLocked()
}

// frameHead is the header of an HTTP/2 frame (RFC 9113 section 4.1).
type frameHead struct {
	kind   http2.FrameType
	flags  http2.Flags
	stream uint32
}

const (
	frameHeadSize = 9
	prefaceSize   = len(http2.ClientPreface)
)

// frameScanner finds the heads of frames in a stream of octets.
type frameScanner struct {
	skip int // octets before the next head
	head [frameHeadSize]byte
	have int // octets of head
}

// scan calls found for each frame whose head ends in p.
func (s *frameScanner) scan(p []byte, found func(frameHead)) {
	for len(p) > 0 {
		if s.skip > 0 {
			n := min(s.skip, len(p))
			s.skip -= n
			p = p[n:]
			continue
		}
		n := copy(s.head[s.have:], p)
		s.have += n
		p = p[n:]
		if s.have < frameHeadSize {
			return
		}
		s.have = 0
		s.skip = int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
		found(frameHead{
			http2.FrameType(s.head[3]), http2.Flags(s.head[4]), binary.BigEndian.Uint32(s.head[5:]) &^ (1 << 31),
		})
	}
}

// framed is gRPC's view of a connection; it passes the heads of frames to the
// debt.
type framed struct {
	net.Conn
	debt      *debt
	came, out frameScanner
}

func newFramed(c net.Conn, d *debt) *framed {
	return &framed{Conn: c, debt: d, came: frameScanner{skip: prefaceSize}}
}

// Read implements net.Conn.
func (f *framed) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.came.scan(p[:n], f.debt.came)
	f.debt.rest()
	return n, err
}

// Write implements net.Conn.
func (f *framed) Write(p []byte) (int, error) {
	n, err := f.Conn.Write(p)
	f.out.scan(p[:n], f.debt.went)
	return n, err
}
