package inspect

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Ending is the end of one session of a subscriber, and of its binding.
type Ending struct {
	Number uint64            // larger than those of all earlier endings, also over a restart
	Record subscriber.Record // the last known one
	subscriber.End
	At        time.Time    // when the record ended, or the binding was evicted
	Blocks    nat.Blocks   // that it had; without Outside for none
	Receipt   *nat.Receipt // of the removal; nil while that is not complete, or where nothing was to remove
	ResumedAt time.Time    // the subscriber came back to its live sessions; zero if it did not
}

// EndingFilter selects endings; zero fields match all.
type EndingFilter struct {
	Group    string
	Inside   netip.Prefix
	UserName string // raw octets, exact
	NAS      string // raw octets, exact
	Reason   subscriber.Reason
	Since    time.Time // ended then or later
	Until    time.Time // ended before
	Outside  netip.Prefix
}

// Match reports whether the ending passes the filter.
func (f *EndingFilter) Match(e *Ending) bool {
	return matches(f.Group, e.Record.Group) &&
		matches(f.UserName, e.Record.UserName) &&
		matches(f.NAS, e.Record.NAS) &&
		matches(f.Reason, e.Reason) &&
		within(f.Inside, e.Record.Inside) &&
		(!f.Outside.IsValid() || e.Blocks.Outside.IsValid() && f.Outside.Contains(e.Blocks.Outside)) &&
		!e.At.Before(f.Since) &&
		(f.Until.IsZero() || e.At.Before(f.Until))
}

// Endings is a page of endings, the latest first.
type Endings struct {
	List  []Ending
	Next  uint64    // continue before this number; 0 at the end
	Since time.Time // every ending from then on is known
}

// NASEndings counts the subscribers that ended for one restart of a NAS.
type NASEndings struct {
	Subscribers int
	First, Last time.Time
}
