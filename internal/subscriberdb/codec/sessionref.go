package codec

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// AppendSessionRef appends a session's identity as one word:
// <client>/<nas>/<Acct-Session-Id>, each escaped, and /<inside address> if several sessions
// share the identifier.
func AppendSessionRef(text []byte, id subscriber.SessionID) []byte {
	text = append(append(text, Escape(id.Client)...), '/')
	text = append(append(text, Escape(id.NAS)...), '/')
	text = append(text, Escape(id.AcctSessionID)...)
	if id.Leg.IsValid() {
		text = append(append(text, '/'), Escape(id.Leg.String())...)
	}
	return text
}

// ParseSessionRef parses the result of AppendSessionRef.
func ParseSessionRef(ref string) (subscriber.SessionID, error) {
	parts := strings.Split(ref, "/")
	if len(parts) != 3 && len(parts) != 4 {
		return subscriber.SessionID{}, fmt.Errorf("session reference %q", ref)
	}
	for i := range parts {
		var err error
		if parts[i], err = unescape(parts[i]); err != nil {
			return subscriber.SessionID{}, err
		}
	}
	id := subscriber.SessionID{Client: parts[0], NAS: parts[1], AcctSessionID: parts[2]}
	if len(parts) == 4 {
		var err error
		if id.Leg, err = netip.ParseAddr(parts[3]); err != nil {
			return subscriber.SessionID{}, fmt.Errorf("session reference %q: %w", ref, err)
		}
	}
	return id, nil
}

// NASRef returns the identity of a session's NAS as one word: <client>/<nas>, each escaped.
func NASRef(id subscriber.SessionID) string { return Escape(id.Client) + "/" + Escape(id.NAS) }

// ParseNASRef parses the result of NASRef; the session has no Acct-Session-Id.
func ParseNASRef(ref string) (subscriber.SessionID, error) { return ParseSessionRef(ref + "/") }
