package subscriber

import "time"

// maxDelay bounds the delays and clock errors that are believed. A NAS may
// queue accounting for a day and more while the server is away. A longer delay
// counts as none: a FreeRADIUS detail relay makes one from a wrong clock. A
// clock that is further off tells nothing (set to 1970, a flat battery).
const maxDelay = 48 * time.Hour

// remembered is the longest time for which the end of a session is remembered,
// 24 h (docs/redis.md), plus an hour. The hour keeps a clock that was set back
// by a day from looking like an old packet.
const remembered = 25 * time.Hour

// longAgo is the largest distance of a stamp behind the known clock of its NAS
// at which the packet counts as old. A stamp that is further behind is of a
// clock that lost its time.
const longAgo = 30 * 24 * time.Hour

// Began returns the start of the event's session, as far as the event tells:
// the time of a Start, or else Acct-Session-Time before the event (SES-03).
func (ev *Event) Began() time.Time {
	if ev.Kind == EventStart || ev.SessionTime < 0 {
		return ev.At
	}
	return ev.At.Add(-ev.SessionTime)
}

// arrange fills in Latest and Told of an event whose time is known exactly.
func (ev *Event) arrange() {
	if ev.Latest.IsZero() {
		ev.Latest, ev.Told = ev.At, true
	}
}

// farBehind reports whether the event is so late by the NAS's clock that the
// clock is probably wrong: set back, by NTP or at the end of summer time. A
// relay that keeps events for hours and sends no delay looks the same.
func (ev *Event) farBehind() bool { return ev.Latest.Sub(ev.At) > reordering }

// Astray returns how far the event's stamp is ahead of Latest, if that is too
// far for the stamp to be used; else 0.
func (ev *Event) Astray() time.Duration {
	if ahead := ev.Stamp.Sub(ev.Latest); !ev.Stamp.IsZero() && ahead.Abs() > maxDelay {
		return ahead
	}
	return 0
}

// startDigest distinguishes a Start without a stamp from other Starts.
func (ev *Event) startDigest() uint64 {
	if !ev.Stamp.IsZero() {
		return 0
	}
	return ev.Digest
}

// forgotten reports whether the event is so old that the end of its session may
// have been forgotten since.
func (ev *Event) forgotten() bool {
	return !ev.Arrival.IsZero() && ev.Arrival.Sub(ev.At) > remembered
}

// The constants by which a Clock learns.
const (
	// clockWindow is how long the smallest lateness counts. The offset of a clock
	// that was set back is known again after two windows at most.
	clockWindow = 5 * time.Minute
	// sameOffset is the largest difference between readings of one clock: whole
	// seconds, and some for the network.
	sameOffset = 3 * time.Second
	// A clock counts as set back when two readings that are this far apart in time
	// agree. Readings from a queue that is played back do not agree: their lateness
	// shrinks.
	stepSpan = 10 * time.Second
)

// Clock is the learned offset of a NAS's clock from ours. It corrects the NAS's
// Event-Timestamps, so that a clock that is hours off orders events as well as
// a right one. It learns from prompt events, and takes the least late ones for
// prompt. The zero Clock knows nothing. It is not safe for concurrent use.
type Clock struct {
	offset time.Duration // of the NAS's clock, less ours
	known  bool
	unsure bool // the NAS has restarted since, and may have set its clock

	since           time.Time     // start of the window of current
	before, current time.Duration // the largest readings of the previous window and of this one

	step reading // a smaller offset that may be the new one
}

// reading is a run of consecutive readings that agree.
type reading struct {
	offset time.Duration // the largest
	first  time.Time     // arrival of the first
	count  int
}

// NewClock returns a clock with a known offset, as read at a time.
func NewClock(offset time.Duration, at time.Time) Clock {
	return Clock{offset: offset, known: true, since: at, before: offset, current: offset}
}

// Offset returns how far the NAS's clock is ahead of ours, to about a second,
// and whether that is known.
func (c *Clock) Offset() (ahead time.Duration, known bool) { return c.offset, c.known }

// Place fills in the time of an event by our clock: At, Latest and Told. The
// event happened no later than its arrival less its delay; the NAS or a relay
// counted that delay, which needs no clock. Without a delay, the NAS's clock
// may tell an earlier time, if its offset is known. An event without an Arrival
// has its At already and stays as it is.
func (c *Clock) Place(ev *Event) {
	if ev.Arrival.IsZero() {
		ev.arrange()
		return
	}
	ev.Latest = ev.Arrival
	if ev.Delay >= 0 && ev.Delay <= maxDelay {
		ev.Latest = ev.Arrival.Add(-ev.Delay) // RFC 2866 section 5.2
	}
	ev.At, ev.Told = ev.Latest, ev.Delay >= 0
	usable := !ev.Stamp.IsZero() && ev.Astray() == 0
	if ev.Kind == EventAccountingOn || ev.Kind == EventAccountingOff {
		c.restart(ev, usable)
		return
	}
	switch {
	case !usable:
		c.doubt(ev)
		return
	case ev.Delay > 0:
		c.read(ev) // a delay may be counted wrong, so the clock does not learn from it
		return
	}
	if !c.known && ev.Delay < 0 && ev.Stamp.Before(ev.Latest) {
		ev.Claimed = ev.Stamp
	}
	ev.Told = ev.Told || c.known
	c.learn(ev.Stamp.Sub(ev.Latest), ev.Arrival)
	c.read(ev)
}

// doubt handles a stamp that is too far off to be used. If it is behind a known
// clock, the packet counts as old: a replay. If two stamps in a row agree, the
// clock was set back that far and is no longer known.
func (c *Clock) doubt(ev *Event) {
	ahead := ev.Stamp.Sub(ev.Latest)
	if !c.known || c.unsure || ev.Stamp.IsZero() || ahead > 0 || c.offset-ahead > longAgo {
		return
	}
	if c.agrees(ahead, ev.Arrival) {
		*c = Clock{}
		return
	}
	ev.At, ev.Told = ev.Stamp.Add(-c.offset), true
}

// read sets At from the stamp, if the clock is known and the stamp says
// earlier. Beside a counted delay it does so only if both agree within the
// jitter: delays are counted in whole seconds begun, and stamps order the
// events of one NAS better.
func (c *Clock) read(ev *Event) {
	at := ev.Stamp.Add(-c.offset)
	if c.known && at.Before(ev.At) && (ev.Delay <= 0 || ev.At.Sub(at) <= jitter) {
		ev.At = at
	}
}

// restart places a restart of the NAS. The clock does not learn from it,
// because a NAS boots with any time and sets its clock a while later. So the
// offset is unsure from here on, and a stamp far behind is ignored.
func (c *Clock) restart(ev *Event, usable bool) {
	if usable {
		c.read(ev)
	}
	if ev.farBehind() {
		ev.At = ev.Latest
	}
	c.unsure = c.known
}

// learn takes a reading. An event cannot arrive before it happened, so a larger
// offset than the known one is believed at once; a smaller one may come from a
// late event. After a restart a somewhat smaller one is believed too; a much
// smaller one stays undecided.
func (c *Clock) learn(ahead time.Duration, arrival time.Time) {
	if !c.known || c.unsure && ahead >= c.offset-reordering {
		*c = NewClock(ahead, arrival)
		return
	}
	if arrival.Sub(c.since) >= clockWindow { // a new window begins
		c.before, c.current, c.since = c.current, -2*maxDelay, arrival
	}
	c.current = max(c.current, ahead)
	switch {
	case ahead >= c.offset-sameOffset:
		c.step = reading{}
	case c.agrees(ahead, arrival): // the clock was set back
		*c = NewClock(c.step.offset, arrival)
	}
	c.offset = max(c.before, c.current)
}

// agrees notes a reading of a clock that may have been set back, and reports
// whether an earlier reading agrees with it.
func (c *Clock) agrees(ahead time.Duration, arrival time.Time) bool {
	if c.step.count == 0 || (ahead-c.step.offset).Abs() > sameOffset {
		c.step = reading{offset: ahead, first: arrival}
	}
	c.step.count++
	c.step.offset = max(c.step.offset, ahead)
	return c.step.count > 1 && arrival.Sub(c.step.first) >= stepSpan
}
