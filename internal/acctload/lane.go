package acctload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"layeh.com/radius"
)

// ErrSilent is returned when the server answers nothing at all.
var ErrSilent = errors.New("acctload: the server does not answer: is it there, does it know this client, is the secret right?")

// lookUp bounds the time until a lane notices that its context has ended.
const lookUp = 50 * time.Millisecond

// preparing is the number of outstanding requests of a socket before the
// measurement begins.
const preparing = 64

// A lane is one socket with its identifiers and subscribers. Lanes share
// only whether the server is heard, and each runs in one goroutine.
type lane struct {
	options    *Options
	epoch      time.Time // times count from here
	socket     *socket
	heard      *atomic.Bool // a valid reply came to any lane, at any time
	window     *window
	population *population
	templates  [kinds]*template
	tally      tally
	reply      []byte // with capacity for the secret

	random *rand.Rand
	script script
	pace   pace
	stop   time.Duration // no request is due from here on
	over   bool          // the script has ended

	expiry time.Duration // no transmission times out before this
}

func newLane(o *Options, i int, run uint32, epoch time.Time, s *socket, heard *atomic.Bool) *lane {
	l := &lane{
		options:    o,
		epoch:      epoch,
		socket:     s,
		heard:      heard,
		population: newPopulation(o, i, run),
		random:     rand.New(rand.NewPCG(o.Seed, uint64(i))),
		expiry:     never,
		reply:      make([]byte, 0, radius.MaxPacketLength+len(o.Secret)),
	}
	nas := o.NAS
	if o.Scenario == NASRestart && o.Sockets > 1 {
		nas = fmt.Sprintf("%s-%d", nas, i)
	}
	room := 0
	for _, kind := range []Kind{KindStart, KindInterim, KindStop, KindAccountingOn} {
		l.templates[kind] = newTemplate(o, nas, kind)
		room = max(room, len(l.templates[kind].octets))
	}
	l.window = newWindow(room)
	return l
}

func (l *lane) now() time.Duration { return time.Since(l.epoch) }

// prepare brings the scenario's initial subscribers online.
func (l *lane) prepare(ctx context.Context) error {
	scenario, online := scriptOf(l.options, l.population, l.random)
	l.script = &rounds{population: l.population, kind: KindStart, count: online, once: true}
	l.pace, l.stop = closedLoop{preparing}, never
	err := l.run(ctx)
	l.script, l.over = scenario, false
	return err
}

// measure runs the scenario from a time on.
func (l *lane) measure(ctx context.Context, i int, from time.Duration) error {
	l.tally.began = from + l.options.Warmup
	l.tally.ends = l.tally.began + l.options.Duration
	l.pace, l.stop = paceOf(l.options, i, from, l.random), l.tally.ends
	err := l.run(ctx)
	l.countUnsent()
	if l.over { // before the duration is over
		l.tally.ends = max(l.tally.began, min(l.tally.ends, l.now()))
	}
	return err
}

// run sends and receives until no request is due or outstanding. When the
// context ends it stops at once.
func (l *lane) run(ctx context.Context) error {
	for {
		now := l.now()
		l.expire(now)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if l.silent() {
			return ErrSilent
		}
		next := l.fill(now)
		if err := l.flush(); err != nil {
			return err
		}
		if l.window.outstanding == 0 && (l.over || now >= l.stop) {
			return nil
		}
		if err := l.receive(now, min(next, l.expiry, now+lookUp)); err != nil {
			return err
		}
	}
}

// fill begins the requests that are due and returns when the next one is due.
func (l *lane) fill(now time.Duration) time.Duration {
	for !l.over && !l.window.full() {
		due := l.pace.due(now, l.window.outstanding)
		switch {
		case due >= l.stop:
			return never
		case due > now:
			return due
		}
		kind, subscriber, a := l.script.next(turn{now, l.window.outstanding})
		if a != proceed {
			l.over = a == over
			return never
		}
		l.pace.took()
		l.begin(kind, subscriber, due, now)
	}
	return never
}

func (l *lane) begin(kind Kind, subscriber int, due, now time.Duration) (id byte) {
	id, x := l.window.reserve()
	at := uint32(l.epoch.Add(now).Unix())
	ev := l.population.event(kind, subscriber, at)
	x.request = l.templates[kind].fill(x.buffer, id, &ev)
	x.kind, x.subscriber, x.due = kind, subscriber, due
	x.transmissions, x.timeout = 1, l.options.Timeout
	l.transmit(x, now)
	l.tally.sent(due)
	return id
}

func (l *lane) transmit(x *exchange, now time.Duration) {
	x.deadline = now + x.timeout
	l.expiry = min(l.expiry, x.deadline)
	l.socket.send(x.request)
}

func (l *lane) flush() error {
	refused, err := l.socket.flush()
	l.tally.Refused += refused
	return err
}

func (l *lane) receive(now, until time.Duration) error {
	datagrams, refused, err := l.socket.receive(l.epoch.Add(now), l.epoch.Add(until))
	if err != nil {
		return err
	}
	if refused {
		l.tally.Refused++
	}
	now = l.now()
	for i := range datagrams {
		// A copy, because the next datagram may follow at once in the same buffer.
		l.reply = append(l.reply[:0], datagrams[i].Octets...)
		l.handleReply(l.reply, now)
	}
	return nil
}

// handleReply handles one datagram of the server.
func (l *lane) handleReply(datagram []byte, now time.Duration) {
	f, x := l.window.judge(datagram, l.options.Secret)
	if f != genuine {
		l.tally.found(f)
		return
	}
	l.window.release(x.request[1])
	if !l.heard.Load() {
		l.heard.Store(true)
	}
	l.tally.answered(x, now)
	l.population.settle(x.kind, x.subscriber, true)
}

// expire retransmits requests whose timeout has passed, or gives them up.
func (l *lane) expire(now time.Duration) {
	if now < l.expiry {
		return
	}
	l.expiry = never
	for i := range l.window.exchanges {
		x := &l.window.exchanges[i]
		switch {
		case !x.waiting:
		case x.deadline > now:
			l.expiry = min(l.expiry, x.deadline)
		case x.transmissions < l.options.Transmissions:
			l.retransmit(x, now)
		default:
			l.abandon(byte(i), x)
		}
	}
}

// retransmit sends the same octets again, so that the server can detect the
// duplicate.
func (l *lane) retransmit(x *exchange, now time.Duration) {
	x.transmissions++
	x.timeout = time.Duration(float64(x.timeout) * l.options.Backoff)
	l.transmit(x, now)
	l.tally.retransmitted(x)
}

func (l *lane) abandon(id byte, x *exchange) {
	l.window.release(id)
	l.tally.lost(x)
	l.tally.givenUp++
	l.population.settle(x.kind, x.subscriber, false)
}

// silent reports whether requests were lost and none of any lane was ever answered.
func (l *lane) silent() bool { return l.tally.givenUp > 0 && !l.heard.Load() }

// countUnsent counts the requests of an open loop that became due and found no
// free identifier or subscriber.
func (l *lane) countUnsent() {
	open, ok := l.pace.(*openLoop)
	if !ok || l.over {
		return
	}
	for ; open.next < l.stop; open.took() {
		if l.tally.measures(open.next) {
			l.tally.Unsent++
		}
	}
}
