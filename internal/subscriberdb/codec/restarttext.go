package codec

import (
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Words before the time of a restart: that it ends sessions only if their NAS goes
// on not to report them, its Event-Timestamp in seconds since 1970, and the digests of its
// packet and of those before it.
const (
	wordConfirm = "confirm/"
	wordStamp   = "stamp="
	wordPackets = "packets="
)

// FormatRestart writes a restart as the script stores it, which adds the feed
// identifier.
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

// ParseRestart reads "<time> <feed identifier>"; empty for none.
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
