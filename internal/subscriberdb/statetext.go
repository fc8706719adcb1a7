package subscriberdb

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// The session states as one line each, which is also what compare-and-set
// compares:
//
//	open   <inside or -> <start> - <user>           began with an Acct-Start
//	found  <inside or -> <start> - <user>           first heard of by an Interim
//	closed/<reason> <inside or -> <start> <end> <user>
//
// Users are escaped, absent words are "-".
const (
	wordOpen   = "open"
	wordFound  = "found"
	wordClosed = "closed/"
	wordMoved  = "MOVED" // reason of a session that went to another group
)

func formatState(s *subscriber.SessionState) string {
	return string(appendState(make([]byte, 0, 96), s))
}

func appendState(text []byte, s *subscriber.SessionState) []byte {
	text = append(append(text, stateWord(s)...), ' ')
	text = append(appendAddr(text, s.Inside), ' ')
	text = append(appendTimeOrDash(text, s.Start), ' ')
	text = append(appendTimeOrDash(text, s.End), ' ')
	return append(text, orDash(escape(s.UserName))...)
}

func appendAddr(text []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(text, '-')
	}
	return a.AppendTo(text)
}

func appendTimeOrDash(text []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(text, '-')
	}
	return appendTime(text, t)
}

func stateWord(s *subscriber.SessionState) string {
	switch {
	case s.Phase == subscriber.Closed && s.Reason == subscriber.ReasonNone:
		return wordClosed + wordMoved
	case s.Phase == subscriber.Closed:
		return wordClosed + s.Reason.String()
	case s.Exact:
		return wordOpen
	}
	return wordFound
}

// parseState reads a state line; the empty line is an unknown session.
func parseState(line string) (subscriber.SessionState, error) {
	if line == "" {
		return subscriber.SessionState{}, nil
	}
	words := strings.Split(line, " ")
	if len(words) != 5 {
		return subscriber.SessionState{}, fmt.Errorf("session state %q: want 5 words", line)
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
	return s, err
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

// parseRestart reads "<time> <feed identifier>"; empty for none.
func parseRestart(line string) subscriber.Restart {
	at, id, _ := strings.Cut(line, " ")
	return subscriber.Restart{At: parseTime(at), ID: id}
}

// orDash writes an absent word. A user whose name is "-" is written escaped.
func orDash(word string) string {
	if word == "" {
		return "-"
	}
	return escapeDash(word)
}

// escapeDash keeps a word that is a dash from being taken for no word.
func escapeDash(word string) string {
	if word == "-" {
		return "%2D"
	}
	return word
}
