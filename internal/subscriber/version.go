package subscriber

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

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
