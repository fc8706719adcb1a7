package lsn

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// GraceFor returns the grace time of a subscriber whose session ended for an
// Acct-Terminate-Cause (RFC 2866 section 5.10): 0 where the group grants none.
func (c *GroupConfig) GraceFor(cause uint32) time.Duration {
	if cause == 0 || !slices.Contains(c.GraceCauses, cause) {
		return 0
	}
	return c.Grace
}

// SetGrace sets the time until which the subscriber of a Draining binding may have it back
// unchanged; the zero time removes it. ErrTransition: the binding is not Draining.
func (e *Engine) SetGrace(group string, inside netip.Addr, until time.Time) (nat.Binding, error) {
	return e.note(group, inside, nat.Draining, func(l *lease) { l.after = &teardownInfo{grace: until} })
}
