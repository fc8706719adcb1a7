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

// delayed reports whether the event tells that it happened before it came.
func (ev *Event) delayed() bool { return ev.Latest.Before(ev.Arrival) || ev.Arrival.IsZero() }

// farBehind reports whether the NAS's clock makes the event so late that the clock
// is rather wrong: set back, by NTP or at the end of summer time. A relay that keeps
// events for hours and tells no delay looks the same.
func (ev *Event) farBehind() bool { return ev.Latest.Sub(ev.At) > reordering }

// Astray returns how far the event's stamp is ahead of the time at which it happened
// at the latest, where that is too far for the stamp to be heeded; 0 otherwise.
func (ev *Event) Astray() time.Duration {
	if ahead := ev.Stamp.Sub(ev.Latest); !ev.Stamp.IsZero() && ahead.Abs() > maxDelay {
		return ahead
	}
	return 0
}

// latest is the latest time at which an event can have happened: its arrival less
// Acct-Delay-Time (RFC 2866 section 5.2).
func latest(arrival time.Time, delay time.Duration) time.Time {
	if delay < 0 || delay > maxDelay {
		return arrival
	}
	return arrival.Add(-delay)
}
