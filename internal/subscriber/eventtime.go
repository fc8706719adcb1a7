package subscriber

import "time"

// How far an Event-Timestamp may lie from the packet's arrival and still be
// believed. A NAS may queue accounting for a day and more when the server is
// away; a clock that runs ahead would fence out everything that follows.
const (
	oldestStamp = 48 * time.Hour
	newestStamp = 5 * time.Minute
)

// EventTime returns when an accounting event happened: its Event-Timestamp (RFC
// 2869 section 5.3, zero when absent) if that is plausible at the packet's
// arrival, otherwise the arrival less Acct-Delay-Time (RFC 2866 section 5.2). An
// absurd delay counts as none: a FreeRADIUS detail relay makes one of a wrong
// clock, and a Start that looked two days old would be refused its address.
func EventTime(arrival, stamp time.Time, delay time.Duration) time.Time {
	if plausible(arrival, stamp) {
		return stamp
	}
	if delay < 0 || delay > oldestStamp {
		return arrival
	}
	return arrival.Add(-delay)
}

func plausible(arrival, stamp time.Time) bool {
	return !stamp.IsZero() &&
		!stamp.Before(arrival.Add(-oldestStamp)) &&
		!stamp.After(arrival.Add(newestStamp))
}
