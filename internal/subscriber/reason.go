package subscriber

import "fmt"

var reasonNames = [...]string{
	ReasonNone:              "",
	ReasonStop:              "STOP",
	ReasonNASRestart:        "NAS_RESTART",
	ReasonExpired:           "EXPIRED",
	ReasonAdmin:             "ADMIN",
	ReasonSuperseded:        "SUPERSEDED",
	ReasonRemovedInDatabase: "REMOVED_IN_DATABASE",
}

// Reasons returns all reasons, ReasonNone first.
func Reasons() []Reason {
	all := make([]Reason, len(reasonNames))
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// String returns the name used in the change feed, in events and in metrics;
// empty for ReasonNone.
func (r Reason) String() string {
	if int(r) >= len(reasonNames) {
		return fmt.Sprintf("Reason(%d)", uint8(r))
	}
	return reasonNames[r]
}

// ParseReason is the reverse of Reason.String.
func ParseReason(s string) (Reason, error) {
	for i, name := range reasonNames {
		if name == s {
			return Reason(i), nil
		}
	}
	return ReasonNone, fmt.Errorf("unknown reason %q", s)
}

// lapses reports whether a session that ended for this reason may still be
// online: its NAS did not say that it ended, so a newer Interim brings it back.
// Some NASes send Accounting-On although their sessions go on. ReasonNone is a
// session that moved to another group.
func (r Reason) lapses() bool {
	switch r {
	case ReasonStop, ReasonSuperseded:
		return false
	}
	return true
}
