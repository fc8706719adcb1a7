package subscriber

import "time"

// maxDelay bounds what is believed of a told time. A NAS may queue accounting for
// a day and more when the server is away. An absurd delay counts as none: a
// FreeRADIUS detail relay makes one of a wrong clock. A clock that is further off
// says nothing (set to 1970, a flat battery).
const maxDelay = 48 * time.Hour

// remembered is how long the end of a session is remembered at most, 24 h (docs/redis.md),
// and an hour: a clock that is set back by a day is not to be taken for an old packet.
const remembered = 25 * time.Hour

// longAgo is how far a stamp may be behind the known clock of its NAS for the packet to be
// an old one. One that is further behind is of a clock that lost its time.
const longAgo = 30 * 24 * time.Hour

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

// startDigest tells a Start that has no stamp from others.
func (ev *Event) startDigest() uint64 {
	if !ev.Stamp.IsZero() {
		return 0
	}
	return ev.Digest
}

// forgotten reports whether the event is known to be so old that the end of its session
// may have been forgotten since.
func (ev *Event) forgotten() bool {
	return !ev.Arrival.IsZero() && ev.Arrival.Sub(ev.At) > remembered
}

// latest is the latest time at which an event can have happened: its arrival less
// Acct-Delay-Time (RFC 2866 section 5.2).
func latest(arrival time.Time, delay time.Duration) time.Time {
	if delay < 0 || delay > maxDelay {
		return arrival
	}
	return arrival.Add(-delay)
}
