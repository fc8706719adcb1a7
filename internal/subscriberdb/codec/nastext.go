package codec

import (
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// NASName names a NAS.
type NASName struct {
	Client string // its realm, or the name of its RADIUS client
	Name   string // as in the NAS of a subscriber.SessionID
}

// NASOf names the NAS of a session.
func NASOf(id subscriber.SessionID) NASName { return NASName{id.Client, id.NAS} }

// Session is the identity that the sessions of the NAS share: without an Acct-Session-Id.
func (n NASName) Session() subscriber.SessionID {
	return subscriber.SessionID{Client: n.Client, NAS: n.Name}
}

// NASLine is the part of the knowledge of one NAS that is kept in Redis:
//
//	heard=<time> offset=<seconds> unheeded=<seconds> restarted=<time> same_as=<client>/<nas>
type NASLine struct {
	LastHeard time.Time     // arrival of its last accounting
	Offset    time.Duration // how far its clock is ahead of ours, to the second or so
	Known     bool          // Offset is known
	Unheeded  time.Duration // how far its last Event-Timestamp was ahead, where too far to be heeded; else 0
	Restarted time.Time     // event time of its last Accounting-On or -Off; zero for none
	SameAs    NASName       // the NAS that this one was found to be; the zero name: it is itself
}

// Format writes the line; see ParseNASLine.
func (n *NASLine) Format() string {
	text := appendTime([]byte("heard="), n.LastHeard)
	if n.Known {
		text = appendSeconds(append(text, " offset="...), n.Offset)
	}
	if n.Unheeded != 0 {
		text = appendSeconds(append(text, " unheeded="...), n.Unheeded)
	}
	if !n.Restarted.IsZero() {
		text = appendTime(append(text, " restarted="...), n.Restarted)
	}
	if n.SameAs != (NASName{}) {
		text = append(append(text, " same_as="...), NASRef(n.SameAs.Session())...)
	}
	return string(text)
}

func appendSeconds(text []byte, d time.Duration) []byte {
	return strconv.AppendInt(text, int64(d/time.Second), 10)
}

// ParseNASRow reads a field of NASesKey and its value. A field that sessiond would write
// otherwise is not ours.
func ParseNASRow(ref, line string) (NASName, NASLine, bool) {
	id, err := ParseNASRef(ref)
	if err != nil || NASRef(id) != ref {
		return NASName{}, NASLine{}, false
	}
	return NASOf(id), ParseNASLine(line), true
}

// ParseNASLine reads a line. Unreadable values are left zero.
func ParseNASLine(line string) NASLine {
	var n NASLine
	for word := range strings.SplitSeq(line, " ") {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "heard":
			n.LastHeard = parseTime(value)
		case "offset":
			n.Offset, n.Known = parseSeconds(value)
		case "unheeded":
			n.Unheeded, _ = parseSeconds(value)
		case "restarted":
			n.Restarted = parseTime(value)
		case "same_as":
			if id, err := ParseNASRef(value); err == nil {
				n.SameAs = NASOf(id)
			}
		}
	}
	return n
}

// parseSeconds reads seconds that fit a Duration: clocks tell of 1970 to 2106.
func parseSeconds(value string) (time.Duration, bool) {
	seconds, err := strconv.ParseInt(value, 10, 34)
	if err != nil {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}
