package codec

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// The session states as one line each, which compare-and-set compares as a whole:
//
//	open   <inside or -> <start> - <user>           began with an Acct-Start
//	found  <inside or -> <start> - <user>           its first event was an Interim
//	closed/<reason> <inside or -> <start> <end> <user>
//
// Users are escaped, absent words are "-". Optional words follow, which few sessions need:
//
//	stamp=<seconds since 1970>   Event-Timestamp of the Start, as the NAS sent it
//	packet=<digest>              digest of the Start's packet, where it has no Event-Timestamp
//	before=<time>                start of an earlier session under the identifier
//	heard=<time>                 last event of a session whose address another session took
//	doubtful                     by the NAS's clock that other session began earlier
const (
	wordOpen   = "open"
	wordFound  = "found"
	wordClosed = "closed/"
	wordMoved  = "MOVED" // reason of a session that moved to another group
)

// FormatState returns a state line; see ParseState.
func FormatState(s *subscriber.SessionState) string {
	return string(AppendState(make([]byte, 0, 96), s))
}

// AppendState appends a state line.
func AppendState(text []byte, s *subscriber.SessionState) []byte {
	switch {
	case s.Phase == subscriber.Closed && s.Reason == subscriber.ReasonNone:
		text = append(text, wordClosed+wordMoved...)
	case s.Phase == subscriber.Closed:
		text = append(append(text, wordClosed...), s.Reason.String()...)
	case s.Exact:
		text = append(text, wordOpen...)
	default:
		text = append(text, wordFound...)
	}
	if s.Inside.IsValid() {
		text = s.Inside.AppendTo(append(text, ' '))
	} else {
		text = append(text, " -"...)
	}
	text = appendTimeOrDash(append(text, ' '), s.Start)
	text = appendTimeOrDash(append(text, ' '), s.End)
	text = append(append(text, ' '), orDash(Escape(s.UserName))...)
	text = AppendStart(text, s)
	if !s.Before.IsZero() {
		text = appendTime(append(text, " before="...), s.Before)
	}
	if !s.Heard.IsZero() {
		text = appendTime(append(text, " heard="...), s.Heard)
	}
	if s.Doubtful {
		text = append(text, " doubtful"...)
	}
	return text
}

// AppendStart appends the word of a state line that identifies the Start.
func AppendStart(text []byte, s *subscriber.SessionState) []byte {
	switch {
	case !s.Stamp.IsZero():
		return strconv.AppendInt(append(text, " stamp="...), s.Stamp.Unix(), 10)
	case s.Digest != 0:
		return subscriber.AppendDigest(append(text, " packet="...), s.Digest)
	}
	return text
}

// ParseState parses a state line; the empty line is an unknown session.
func ParseState(line string) (subscriber.SessionState, error) {
	if line == "" {
		return subscriber.SessionState{}, nil
	}
	words := strings.Split(line, " ")
	if len(words) < 5 {
		return subscriber.SessionState{}, fmt.Errorf("session state %q: want 5 words or more", line)
	}
	s, err := parseStateWord(words[0])
	if err != nil {
		return s, fmt.Errorf("session state %q: %w", line, err)
	}
	s.Inside, _ = netip.ParseAddr(words[1])
	s.Start, s.End = parseTime(words[2]), parseTime(words[3])
	if words[4] != "-" {
		s.UserName, err = unescape(words[4])
	}
	for _, word := range words[5:] {
		setStateExtra(&s, word)
	}
	return s, err
}

// setStateExtra sets the value of an optional word. Words of later versions are ignored.
func setStateExtra(s *subscriber.SessionState, word string) {
	switch name, value, _ := strings.Cut(word, "="); name {
	case "stamp":
		if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
			s.Stamp = time.Unix(seconds, 0).UTC()
		}
	case "packet":
		s.Digest, _ = strconv.ParseUint(value, 16, 64)
	case "before":
		s.Before = parseTime(value)
	case "heard":
		s.Heard = parseTime(value)
	case "doubtful":
		s.Doubtful = true
	}
}

func parseStateWord(word string) (subscriber.SessionState, error) {
	switch word {
	case wordOpen:
		return subscriber.SessionState{Phase: subscriber.Open, Exact: true}, nil
	case wordFound:
		return subscriber.SessionState{Phase: subscriber.Open}, nil
	case wordClosed + wordMoved:
		return subscriber.SessionState{Phase: subscriber.Closed}, nil
	}
	name, ok := strings.CutPrefix(word, wordClosed)
	if !ok {
		return subscriber.SessionState{}, fmt.Errorf("unknown word %q", word)
	}
	why, err := subscriber.ParseReason(name)
	return subscriber.SessionState{Phase: subscriber.Closed, Reason: why}, err
}

// stateOverhead is the memory of Redis for the state of a session without the texts from
// its NAS: about, in octets.
const stateOverhead = 220

// StateOctets returns the approximate memory of Redis for the state of a session, in
// octets.
func StateOctets(group string, id subscriber.SessionID, user string) int {
	return stateOverhead + len(group) + escapedLen(id.Client) + escapedLen(id.NAS) + escapedLen(id.AcctSessionID) + escapedLen(user)
}

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
