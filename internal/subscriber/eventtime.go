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

// delayed reports whether the event happened before its arrival, by its own
// delay.
func (ev *Event) delayed() bool { return ev.Latest.Before(ev.Arrival) || ev.Arrival.IsZero() }

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

// latest is the latest possible time of an event: its arrival less
// Acct-Delay-Time (RFC 2866 section 5.2).
func latest(arrival time.Time, delay time.Duration) time.Time {
	if delay < 0 || delay > maxDelay {
		return arrival
	}
	return arrival.Add(-delay)
}
