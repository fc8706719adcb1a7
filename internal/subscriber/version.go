package subscriber

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// CompareVersions orders two feed identifiers ("milliseconds-sequence") as the
// feed does, and returns -1, 0 or +1. What is no identifier sorts first.
func CompareVersions(a, b string) int {
	aMillis, aSeq := splitVersion(a)
	bMillis, bSeq := splitVersion(b)
	return cmp.Or(cmp.Compare(aMillis, bMillis), cmp.Compare(aSeq, bSeq))
}

// VersionTime is when the database took the change, by the database's clock, to
// the millisecond. What is no identifier counts as 1970.
func VersionTime(v string) time.Time {
	millis, _ := splitVersion(v)
	return time.UnixMilli(int64(millis))
}

func splitVersion(v string) (millis, seq uint64) {
	ms, s, _ := strings.Cut(v, "-")
	millis, err := strconv.ParseUint(ms, 10, 64)
	if err != nil {
		return 0, 0
	}
	seq, _ = strconv.ParseUint(s, 10, 64)
	return millis, seq
}
