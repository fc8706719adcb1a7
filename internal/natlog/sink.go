package natlog

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog/wire"
)

// Options are those of a Sink.
type Options struct {
	Protocol Protocol // required
	Target   string   // required: see CheckTarget
	Spool    string   // required: path of the spool's file, which no other sink has

	SpoolSize        int64         // octets of events in the spool at most, from 1 MiB; 1 GiB if zero
	Domain           uint32        // Observation Domain ID of IPFIX, Source ID of NetFlow v9
	FixedNames       bool          // IPFIX: see wire.IPFIX
	TemplateInterval time.Duration // over UDP, templates are sent again after it; 60 s if zero
	TemplateMessages int           // and after so many messages; 20 if zero
	PEN              uint32        // private enterprise number in syslog; that of documentation, 32473, if zero
	Batch            int           // events of a POST at most; 500 if zero
	Interim          time.Duration // blocks in service are told again after it; 24 h if zero
	Node             string        // name of this machine in syslog; "-" if empty
	TLS              *tls.Config   // of tls:// and https://; the system's roots if nil
	Log              *slog.Logger  // required

	Now func() time.Time // time.Now if nil
}

const (
	defaultSpoolSize        = 1 << 30
	defaultTemplateInterval = time.Minute
	defaultTemplateMessages = 20
	defaultBatch            = 500
	defaultInterim          = 24 * time.Hour

	leastWait = 500 * time.Millisecond // before the first attempt after a failure
	mostWait  = 30 * time.Second       // before an attempt, after many
	mostSent  = 8192                   // events that are sent at once, if there are as many
)

// carrier brings events to a collector, over one connection at a time.
type carrier interface {
	// carry sends events, and connects before if there is no connection.
	carry(ctx context.Context, events []nat.Event) error

	// sent returns the number of octets that were sent over the connection.
	sent() uint64

	// received returns the number of octets that the collector's machine has confirmed, and an
	// error if the connection has ended.
	received() (uint64, error)

	// settle returns for how long the connection has to live on behind the confirmation, until
	// what was sent counts as received.
	settle() time.Duration

	close() error
}

// Sink sends events to one collector. Its methods may be called at any time, by several.
type Sink struct {
	target  *target
	spool   *spool
	carrier carrier
	log     *slog.Logger
	interim time.Duration
	now     func() time.Time
	wake    chan struct{}

	mu    sync.Mutex
	stats Stats
}

// Stats are figures of a Sink.
type Stats struct {
	Target      string
	Sent        uint64 // events sent since the start, with those that were sent again
	Failures    uint64 // failed attempts since the start
	Dropped     uint64 // events lost since the spool was made: the spool was full, or its disk has damaged them
	SpoolOctets uint64
	SpoolEvents uint64
	LastError   error // of the last attempt; nil after a success
}

// Open opens a sink with its spool. Run sends.
func Open(o Options) (*Sink, error) {
	t, err := parseTarget(o.Protocol, o.Target)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	o.TemplateInterval = cmp.Or(o.TemplateInterval, defaultTemplateInterval)
	o.TemplateMessages = cmp.Or(o.TemplateMessages, defaultTemplateMessages)
	o.PEN = cmp.Or(o.PEN, wire.ExamplePEN)
	o.Batch = cmp.Or(o.Batch, defaultBatch)
	s := &Sink{
		target: t, log: o.Log.With("collector", t.String(), "protocol", string(o.Protocol)), wake: make(chan struct{}, 1),
		interim: cmp.Or(o.Interim, defaultInterim), now: o.Now,
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.carrier = newCarrier(t, &o)
	if s.spool, err = openSpool(o.Spool, cmp.Or(o.SpoolSize, defaultSpoolSize)); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return s, nil
}

func newCarrier(t *target, o *Options) carrier {
	switch {
	case o.Protocol == HTTP:
		return newPost(t, o)
	case t.scheme == "udp":
		return newDatagrams(t, o)
	}
	return newStream(t, o)
}

// Append stores events of a group for the collector, with the position behind them in the
// group's log. If it returns nil, both are on disk. After an error neither is: append the same
// again.
func (s *Sink) Append(group, position string, events []nat.Event) error {
	if err := s.spool.append(group, position, events); err != nil {
		return fmt.Errorf("export to %v: %w", s.target, err)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// append is Append that leaves the position as it is.
func (s *Sink) append(group string, events []nat.Event) error {
	position, err := s.Position(group)
	if err != nil {
		return err
	}
	return s.Append(group, position, events)
}

// Position returns the position of the last Append for a group, "" if there was none.
func (s *Sink) Position(group string) (string, error) {
	p, err := s.spool.position(group)
	if err != nil {
		return "", fmt.Errorf("export to %v: %w", s.target, err)
	}
	return p, nil
}

// Stats returns the figures.
func (s *Sink) Stats() (Stats, error) {
	counts, err := s.spool.counts()
	if err != nil {
		return Stats{}, fmt.Errorf("export to %v: %w", s.target, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Target, out.Dropped, out.SpoolOctets, out.SpoolEvents = s.target.String(), counts.dropped, counts.size, counts.events
	return out, nil
}

// Close closes the spool, after Run has returned.
func (s *Sink) Close() error { return s.spool.close() }

// Run sends until the context ends, and then returns nil.
func (s *Sink) Run(ctx context.Context) error {
	defer func() {
		if err := s.carrier.close(); err != nil {
			s.log.Debug("connection closed", "error", err)
		}
	}()
	d := delivery{sink: s, wait: leastWait}
	for ctx.Err() == nil {
		pause, err := d.step(ctx)
		if err != nil && ctx.Err() == nil {
			pause = d.fail(err)
		}
		if pause > 0 {
			_, _ = clock.SleepOr(ctx, pause, d.awaited())
		}
	}
	return nil
}

// delivery is the progress of a Run.
type delivery struct {
	sink      *Sink
	sent      uint64        // number of the last chunk that was sent
	confirmed uint64        // of the last one that counts as received
	unsettled []sentChunks  // sent and not confirmed, oldest first
	wait      time.Duration // before the next attempt after a failure
	failed    bool          // the last attempt did
}

// sentChunks are the chunks up to a number.
type sentChunks struct {
	upTo   uint64
	lost   uint64    // events among them that could not be read
	octets uint64    // sent over the connection up to their end
	at     time.Time // when the collector's machine had confirmed them; zero before
}

// confirmEvery is the interval between looks for confirmations.
const confirmEvery = 50 * time.Millisecond

const idle = time.Minute // between looks without an Append

// awaited returns what ends a pause before its time: new events, unless the last attempt failed.
func (d *delivery) awaited() <-chan struct{} {
	if d.failed {
		return nil
	}
	return d.sink.wake
}

// step confirms and sends as far as that goes at once, and returns the pause until there is
// more to do.
func (d *delivery) step(ctx context.Context) (pause time.Duration, err error) {
	if err := d.confirm(); err != nil {
		return 0, err
	}
	list, err := d.sink.spool.read(d.sent, mostSent)
	if err != nil {
		return 0, err
	}
	if len(list) == 0 {
		switch {
		case len(d.unsettled) == 0:
			return idle, nil
		case d.unsettled[len(d.unsettled)-1].at.IsZero():
			return confirmEvery, nil
		}
		return max(confirmEvery, time.Until(d.unsettled[0].at.Add(d.sink.carrier.settle()))), nil
	}
	var events []nat.Event
	next := sentChunks{upTo: list[len(list)-1].number}
	for _, c := range list {
		events = append(events, c.events...)
		if c.unread > 0 {
			d.sink.log.Error("events in the spool cannot be read, and are lost", "events", c.unread, "error", c.unreadBy)
			next.lost += c.unread
		}
	}
	if len(events) > 0 {
		if err := d.sink.carrier.carry(ctx, events); err != nil {
			return 0, err
		}
	}
	d.sent, next.octets = next.upTo, d.sink.carrier.sent()
	d.unsettled = append(d.unsettled, next)
	d.succeed(len(events))
	return 0, nil
}

// confirm removes from the spool what counts as received.
func (d *delivery) confirm() error {
	if len(d.unsettled) == 0 {
		return nil
	}
	received, err := d.sink.carrier.received()
	if err != nil {
		return err
	}
	old, lost := 0, uint64(0)
	for i := range d.unsettled {
		x := &d.unsettled[i]
		if x.at.IsZero() && received >= x.octets {
			x.at = time.Now()
		}
		if x.at.IsZero() || time.Since(x.at) < d.sink.carrier.settle() {
			continue
		}
		old, lost = i+1, lost+x.lost
	}
	if old == 0 {
		return nil
	}
	upTo := d.unsettled[old-1].upTo
	if err := d.sink.spool.remove(upTo, lost); err != nil {
		return fmt.Errorf("remove what was sent from the spool: %w", err)
	}
	d.confirmed, d.unsettled = upTo, d.unsettled[old:]
	return nil
}

// failing reports whether the last attempt failed.
func (s *Sink) failing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.LastError != nil
}

func (d *delivery) succeed(events int) {
	s := d.sink
	s.mu.Lock()
	s.stats.Sent += uint64(events)
	s.stats.LastError = nil
	s.mu.Unlock()
	if d.failed {
		s.log.Info("collector reached again")
	}
	d.failed, d.wait = false, leastWait
}

// fail ends the connection, goes back to what may not have been received, and returns the
// pause before the next attempt.
func (d *delivery) fail(err error) time.Duration {
	s := d.sink
	err = errors.Join(err, s.carrier.close())
	s.mu.Lock()
	s.stats.Failures++
	s.stats.LastError = err
	s.mu.Unlock()
	if !d.failed {
		s.log.Warn("collector cannot be reached; events wait in the spool", "error", err)
	}
	d.failed, d.sent, d.unsettled = true, d.confirmed, nil
	pause := d.wait
	d.wait = min(2*d.wait, mostWait)
	return pause
}
