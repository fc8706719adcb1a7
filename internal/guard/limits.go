package guard

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Limits bound the removals of a wave. The zero value means no bound.
type Limits struct {
	Minimum int // this many removals of a wave pass in any case

	// Shares of the group's subscribers, 0 to 1. 1 means no bound; with 0 only the
	// Minimum passes.
	Removed    float64 // records missing from the database
	Expired    float64 // records whose TTL ran out
	NASRestart float64 // sessions that Accounting-On or -Off ends

	Window time.Duration // time in which a wave's limit comes back; 0: no bounds
}

// share returns the share for a reason, and false for a reason that is never
// bounded: a NAS's report about one session, or a person's decision.
func (l *Limits) share(why subscriber.Reason) (float64, bool) {
	if l.Window <= 0 {
		return 0, false
	}
	var share float64
	switch why {
	case subscriber.ReasonRemovedInDatabase:
		share = l.Removed
	case subscriber.ReasonExpired:
		share = l.Expired
	case subscriber.ReasonNASRestart:
		share = l.NASRestart
	default:
		return 0, false
	}
	return share, share < 1
}

// Bounds reports whether removals for the reason are bounded at all.
func (l *Limits) Bounds(why subscriber.Reason) bool {
	_, bounded := l.share(why)
	return bounded
}

// of returns the number of subscribers that a wave may take.
func (l *Limits) of(share float64, online int) int {
	const rounding = 1e-9 // 0.1 has no exact binary form
	return max(l.Minimum, int(share*float64(online)+rounding))
}
