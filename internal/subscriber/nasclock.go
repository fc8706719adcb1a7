package subscriber

import "time"

// How a Clock learns.
const (
	// clockWindow is how long the smallest lateness that was seen counts. A clock
	// that was set back is known again after two of them at most.
	clockWindow = 5 * time.Minute
	// sameOffset is how near to each other readings of one clock are: whole
	// seconds, and some for the way.
	sameOffset = 3 * time.Second
	// A clock was set back where two readings in a row agree that are so far apart.
	// The events of a queue that is played back do not: their lateness shrinks.
	stepSpan = 10 * time.Second
)

// Clock is what is known of a NAS's clock: how far it is ahead of ours. The NAS's
// Event-Timestamps are read by it, so that a clock that is hours off puts events
// in order as well as a right one. It learns from prompt events, and takes the
// least late ones for prompt. The zero Clock knows nothing. It belongs to one
// goroutine.
type Clock struct {
	offset time.Duration // of the NAS's clock, less ours
	known  bool
	unsure bool // the NAS has restarted since, and may have set its clock

	since           time.Time     // when the window of current began
	before, current time.Duration // the largest reading of the window before and of this one

	step reading // a smaller offset that may be the new one
}

// reading is a run of readings that agree.
type reading struct {
	offset time.Duration // the largest
	first  time.Time     // arrival of the first
	count  int
}

// NewClock returns a clock whose offset is known from before.
func NewClock(offset time.Duration, at time.Time) Clock {
	return Clock{offset: offset, known: true, since: at, before: offset, current: offset}
}

// Offset returns how far the NAS's clock is ahead of ours, to the second or so, and
// whether that is known.
func (c *Clock) Offset() (ahead time.Duration, known bool) { return c.offset, c.known }

// Place finds out when an event happened, by our clock: At, Latest and Told. It
// happened no later than it came, less the delay that it tells. A delay was counted,
// by the NAS or a relay, and needs no clock. Where none was, and the NAS's clock is
// known and says that the event was earlier, it was. An event whose At is known
// already, for it has no Arrival, is left alone.
func (c *Clock) Place(ev *Event) {
	if ev.Arrival.IsZero() {
		ev.arrange()
		return
	}
	ev.Latest = latest(ev.Arrival, ev.Delay)
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
		c.read(ev) // a delay may be counted wrong, so nothing is learned of it
		return
	}
	if !c.known && ev.Delay < 0 && ev.Stamp.Before(ev.Latest) {
		ev.Claimed = ev.Stamp
	}
	ev.Told = ev.Told || c.known
	c.learn(ev.Stamp.Sub(ev.Latest), ev.Arrival)
	c.read(ev)
}

// doubt takes a stamp that is too far off to be heeded, but behind a clock that is known,
// for that of an old packet: a replay. A clock that was set back so far is not known any
// more once two stamps in a row agree on it.
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

// read has the clock say when the event happened, if it is known. Beside a counted
// delay it says so only where both agree: that is in whole seconds that began, and the
// times of one NAS then differ as its stamps do.
func (c *Clock) read(ev *Event) {
	at := ev.Stamp.Add(-c.offset)
	if c.known && at.Before(ev.At) && (ev.Delay <= 0 || ev.At.Sub(at) <= jitter) {
		ev.At = at
	}
}

// restart places a restart of the NAS, from which nothing is learned: a NAS boots
// with any time, and sets its clock a while later. So the offset is doubtful then, and
// a clock that is far behind counts for nothing.
func (c *Clock) restart(ev *Event, usable bool) {
	if usable {
		c.read(ev)
	}
	if ev.farBehind() {
		ev.At = ev.Latest
	}
	c.unsure = c.known
}

// learn takes a reading. An event cannot come before it happened, so a larger
// offset than the known one is believed at once; a smaller one may be an event
// that is late. After a restart one that is somewhat smaller is believed too, and of
// one that is much smaller it is still open what it is.
func (c *Clock) learn(ahead time.Duration, arrival time.Time) {
	if !c.known || c.unsure && ahead >= c.offset-reordering {
		*c = NewClock(ahead, arrival)
		return
	}
	c.turn(arrival)
	c.current = max(c.current, ahead)
	c.look(ahead, arrival)
	c.offset = max(c.before, c.current)
}

// turn begins a new window when the one before is over.
func (c *Clock) turn(arrival time.Time) {
	if arrival.Sub(c.since) < clockWindow {
		return
	}
	c.before, c.current, c.since = c.current, -2*maxDelay, arrival
}

// look looks for a clock that was set back.
func (c *Clock) look(ahead time.Duration, arrival time.Time) {
	if ahead >= c.offset-sameOffset {
		c.step = reading{}
		return
	}
	if c.agrees(ahead, arrival) {
		*c = NewClock(c.step.offset, arrival)
	}
}

// agrees notes a reading that may be of a clock that was set back, and reports whether one
// before it says the same.
func (c *Clock) agrees(ahead time.Duration, arrival time.Time) bool {
	if c.step.count == 0 || (ahead-c.step.offset).Abs() > sameOffset {
		c.step = reading{offset: ahead, first: arrival}
	}
	c.step.count++
	c.step.offset = max(c.step.offset, ahead)
	return c.step.count > 1 && arrival.Sub(c.step.first) >= stepSpan
}
