package codec

import (
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// NASName identifies a NAS.
type NASName struct {
	Client string // its realm, or the name of its RADIUS client
	Name   string // as in the NAS of a subscriber.SessionID
}

// NASOf returns the name of a session's NAS.
func NASOf(id subscriber.SessionID) NASName { return NASName{id.Client, id.NAS} }

// Session returns the common part of the identities of the NAS's sessions: without an
// Acct-Session-Id.
func (n NASName) Session() subscriber.SessionID {
	return subscriber.SessionID{Client: n.Client, NAS: n.Name}
}

// NASLine is the part of the data about one NAS that is stored in Redis:
//
//	heard=<time> offset=<seconds> unheeded=<seconds> restarted=<time> same_as=<client>/<nas>
type NASLine struct {
	LastHeard time.Time     // arrival of its last accounting packet
	Offset    time.Duration // lead of its clock over ours, to about a second
	Known     bool          // Offset is known
	Unheeded  time.Duration // lead of its last Event-Timestamp if that was ignored as too far off; else 0
	Restarted time.Time     // event time of its last Accounting-On or -Off; zero for none
	SameAs    NASName       // the NAS that this is another name of; zero for none
}

// Format returns the line; see ParseNASLine.
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

// ParseNASRow parses a field of NASesKey and its value. It refuses a field that sessiond
// would write in another form.
func ParseNASRow(ref, line string) (NASName, NASLine, bool) {
	id, err := ParseNASRef(ref)
	if err != nil || NASRef(id) != ref {
		return NASName{}, NASLine{}, false
	}
	return NASOf(id), ParseNASLine(line), true
}

// ParseNASLine parses a line. Unreadable values are left zero.
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

// parseSeconds parses seconds that fit a Duration: clocks show years from 1970 to 2106.
func parseSeconds(value string) (time.Duration, bool) {
	seconds, err := strconv.ParseInt(value, 10, 34)
	if err != nil {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}
