package codec

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// FormatOnlineEntry returns the value of a record in the hash of online addresses: its
// session and its user, each as one word, and the first expiry of the record, in
// milliseconds since 1970, 0 for never. The entry remains if another program removes the
// record, and names its session.
func FormatOnlineEntry(r *subscriber.Record) string {
	text := make([]byte, 0, 96)
	text = append(AppendSessionRef(text, r.SessionID), ' ')
	text = append(append(text, orDash(Escape(r.UserName))...), ' ')
	return string(AppendExpiry(text, r.ExpiresAt))
}

// AppendExpiry appends the expiry, the last word of an entry.
func AppendExpiry(text []byte, at time.Time) []byte {
	if at.IsZero() {
		return append(text, '0')
	}
	return strconv.AppendInt(text, at.UnixMilli(), 10)
}

// ParseOnlineEntry returns a record with the data of the entry.
func ParseOnlineEntry(key subscriber.Key, text string) (subscriber.Record, error) {
	r := subscriber.Record{Key: key}
	words := strings.Split(text, " ")
	if len(words) != 3 {
		return r, fmt.Errorf("online entry %q: want 3 words", text)
	}
	var err error
	if r.SessionID, err = ParseSessionRef(words[0]); err != nil {
		return r, err
	}
	if words[1] != "-" {
		if r.UserName, err = unescape(words[1]); err != nil {
			return r, err
		}
	}
	millis, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil {
		return r, fmt.Errorf("online entry %q: %w", text, err)
	}
	if millis > 0 {
		r.ExpiresAt = time.UnixMilli(millis)
	}
	return r, nil
}

// NASOfOnlineEntry returns the NASRef in an entry, "" for none.
func NASOfOnlineEntry(text string) string {
	client, rest, _ := strings.Cut(text, "/")
	nas, _, ok := strings.Cut(rest, "/")
	if !ok {
		return ""
	}
	return text[:len(client)+1+len(nas)]
}

// AppendOnline appends the addresses in the hash of online addresses; fields holds its
// names and values in turn.
func AppendOnline(inside []netip.Addr, fields []string) []netip.Addr {
	inside = slices.Grow(inside, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		if a, err := netip.ParseAddr(fields[i]); err == nil {
			inside = append(inside, a)
		}
	}
	return inside
}
