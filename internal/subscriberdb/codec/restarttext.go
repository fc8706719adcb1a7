package codec

import (
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Words before the time of a restart: that the restart ends only sessions that their NAS
// does not report any more, its Event-Timestamp in seconds since 1970, and the digests of
// its packet and of earlier ones.
const (
	wordConfirm = "confirm/"
	wordStamp   = "stamp="
	wordPackets = "packets="
)

// FormatRestart returns a restart in its stored form, without the feed identifier, which
// the script adds.
func FormatRestart(r *subscriber.Restart) string {
	text := make([]byte, 0, 64)
	if r.Confirm {
		text = append(text, wordConfirm...)
	}
	if !r.Stamp.IsZero() {
		text = append(strconv.AppendInt(append(text, wordStamp...), r.Stamp.Unix(), 10), '/')
	}
	if r.Packets != "" {
		text = append(append(append(text, wordPackets...), r.Packets...), '/')
	}
	return string(appendTime(text, r.At))
}

// ParseRestart parses "<time> <feed identifier>"; empty for none.
func ParseRestart(line string) subscriber.Restart {
	at, id, _ := strings.Cut(line, " ")
	at, confirm := strings.CutPrefix(at, wordConfirm)
	r := subscriber.Restart{ID: id, Confirm: confirm}
	if rest, stamped := strings.CutPrefix(at, wordStamp); stamped {
		var seconds string
		seconds, at, _ = strings.Cut(rest, "/")
		if n, err := strconv.ParseInt(seconds, 10, 64); err == nil {
			r.Stamp = time.Unix(n, 0).UTC()
		}
	}
	if rest, told := strings.CutPrefix(at, wordPackets); told {
		r.Packets, at, _ = strings.Cut(rest, "/")
	}
	r.At = parseTime(at)
	return r
}
