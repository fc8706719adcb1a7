package subscriber

import "time"

// maxDelay bounds what is believed of a told time. A NAS may queue accounting for
// a day and more when the server is away. An absurd delay counts as none: a
// FreeRADIUS detail relay makes one of a wrong clock. A clock that is further off
// says nothing (set to 1970, a flat battery).
const maxDelay = 48 * time.Hour

// arrange fills in what follows from an event time that is known exactly.
func (ev *Event) arrange() {
	if ev.Latest.IsZero() {
		ev.Latest, ev.Told = ev.At, true
	}
}

// latest is the latest time at which an event can have happened: its arrival less
// Acct-Delay-Time (RFC 2866 section 5.2).
func latest(arrival time.Time, delay time.Duration) time.Time {
	if delay < 0 || delay > maxDelay {
		return arrival
	}
	return arrival.Add(-delay)
}
