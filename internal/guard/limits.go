package guard

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Limits say what a wave of removals may take. The zero value bounds nothing.
type Limits struct {
	Minimum int // so many removals of a wave pass in any case

	// Shares of the group's subscribers, 0 to 1. 1 bounds nothing, 0 leaves the
	// Minimum.
	Removed    float64 // records missing from the database
	Expired    float64 // records that ran out
	NASRestart float64 // sessions that Accounting-On or -Off ends

	Window time.Duration // time in which a wave's limit comes back; 0: nothing is bounded
}

// share returns the share for a reason, and false for what is never bounded:
// the word of the NAS about one session, and that of a person.
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

// of is how many of so many subscribers a wave may take.
func (l *Limits) of(share float64, online int) int {
	const rounding = 1e-9 // 0.1 has no exact binary form
	return max(l.Minimum, int(share*float64(online)+rounding))
}
