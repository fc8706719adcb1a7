package subscriber

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ChangeKind is the effect of one entry of the change feed on a record.
type ChangeKind uint8

// The kinds of change.
const (
	Created ChangeKind = iota + 1
	Updated
	Deleted
)

// Change is one entry of a group's change feed. It is written in the same
// atomic step as the record itself. The feed's order is the order in which the
// database took the changes.
type Change struct {
	ID     Version // of the feed entry; changes of several records may share one
	Kind   ChangeKind
	End           // set for Deleted
	Record Packed // the record after the change; for Deleted the last known one (Key always set)

	// Partial marks an Updated or Deleted whose Record holds only its Key and the
	// fields that an Interim-Update changes: UpdatedAt, ExpiresAt, InputOctets,
	// OutputOctets and Version. The other fields are unchanged; see Packed.Refresh.
	Partial bool
}

// End tells why a record ended.
type End struct {
	Reason Reason
	Cause  uint32 // Acct-Terminate-Cause of a ReasonStop (RFC 2866 section 5.10); 0 when absent
}

// Reason is the cause of the end of a subscriber record or, ReasonPoolRemoved, of a
// binding whose record may go on.
type Reason uint8

// Reasons of removal, as in the change feed, events and metrics.
const (
	ReasonNone              Reason = iota
	ReasonStop                     // Acct-Stop of the session
	ReasonNASRestart               // Accounting-On or -Off of its NAS
	ReasonExpired                  // no event within record_ttl
	ReasonAdmin                    // deleted through gRPC
	ReasonSuperseded               // a newer session took the address, or the session moved to another
	ReasonRemovedInDatabase        // another program deleted the record (DEL, UNLINK)
	ReasonPoolRemoved              // a person took the outside prefix of the binding away
)

var reasonNames = [...]string{
	ReasonNone:              "",
	ReasonStop:              "STOP",
	ReasonNASRestart:        "NAS_RESTART",
	ReasonExpired:           "EXPIRED",
	ReasonAdmin:             "ADMIN",
	ReasonSuperseded:        "SUPERSEDED",
	ReasonRemovedInDatabase: "REMOVED_IN_DATABASE",
	ReasonPoolRemoved:       "POOL_REMOVED",
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

// Version is a parsed feed identifier; the zero Version is none.
type Version struct{ millis, seq uint64 }

// ParseVersion parses a feed identifier. A text that is none gives the zero
// Version.
func ParseVersion(id string) Version {
	before, after, _ := strings.Cut(id, "-")
	millis, err := strconv.ParseUint(before, 10, 64)
	if err != nil {
		return Version{}
	}
	seq, _ := strconv.ParseUint(after, 10, 64)
	return Version{millis, seq}
}

// String returns the feed identifier.
func (v Version) String() string {
	var room [41]byte
	text := append(strconv.AppendUint(room[:0], v.millis, 10), '-')
	return string(strconv.AppendUint(text, v.seq, 10))
}

// Compare orders versions as the feed does, and returns -1, 0 or +1.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.millis, o.millis), cmp.Compare(v.seq, o.seq))
}

// Time is when the database took the change, by the database's clock, to the
// millisecond.
func (v Version) Time() time.Time { return time.UnixMilli(int64(v.millis)) }

// CompareVersions orders two feed identifiers ("milliseconds-sequence") as the
// feed does, and returns -1, 0 or +1. A text that is no identifier sorts first.
func CompareVersions(a, b string) int { return ParseVersion(a).Compare(ParseVersion(b)) }

// VersionTime is ParseVersion(id).Time(): 1970 for a text that is no
// identifier.
func VersionTime(id string) time.Time { return ParseVersion(id).Time() }
