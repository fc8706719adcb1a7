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

// Unversioned is the version of a record that another program wrote without one.
const Unversioned = "-"

// AppendFields appends the fields of a record hash, name and value, except its version,
// which the script makes. The fields that an Interim changes come first, because Redis
// finds the first fields fastest. Empty fields are left out unless the record overwrites
// another.
func AppendFields(args []any, r *subscriber.Record, over bool) []any {
	args = append(args, "updated_at", TimeArg(&r.UpdatedAt),
		"input_octets", &r.InputOctets, "output_octets", &r.OutputOctets)
	for _, f := range [...]struct {
		name  string
		value *string
	}{
		{"user_name", &r.UserName},
		{"nas", &r.NAS},
		{"client", &r.Client},
		{"acct_session_id", &r.AcctSessionID},
		{"calling_station_id", &r.CallingStationID},
		{"class", &r.Class},
	} {
		if over || *f.value != "" {
			args = append(args, f.name, f.value)
		}
	}
	args = append(args, "started_at", TimeArg(&r.StartedAt), "unconfirmed", &r.Unconfirmed)
	if over || r.NASAddress.IsValid() {
		args = append(args, "nas_address", FormatAddr(r.NASAddress))
	}
	for _, f := range rareFields(r) {
		if over || f.value != "" {
			args = append(args, f.name, f.value)
		}
	}
	return args
}

// field is one field of a record hash.
type field struct{ name, value string }

// rareFields returns the fields that most records leave empty.
func rareFields(r *subscriber.Record) [8]field {
	leg := ""
	if r.Leg.IsValid() {
		leg = "1"
	}
	return [...]field{
		{"framed_ipv6_addresses", joinTexts(r.FramedIPv6Addresses)},
		{"framed_ipv6_prefixes", joinTexts(r.FramedIPv6Prefixes)},
		{"delegated_prefixes", joinTexts(r.DelegatedPrefixes)},
		{"multi_session_id", r.MultiSessionID},
		{"links", joinWords(r.Links)},
		{"more_classes", joinWords(r.MoreClasses)},
		{"leg", leg},
		{"removal_held", r.RemovalHeld.String()},
	}
}

// IsPlain reports whether all rare fields of the record are empty.
func IsPlain(r *subscriber.Record) bool {
	return len(r.FramedIPv6Addresses) == 0 && len(r.FramedIPv6Prefixes) == 0 && len(r.DelegatedPrefixes) == 0 &&
		r.MultiSessionID == "" && len(r.Links) == 0 && len(r.MoreClasses) == 0 && !r.Leg.IsValid() &&
		r.RemovalHeld == subscriber.ReasonNone
}

// RecordText returns a record in the form of the feed: its non-empty fields as words. The
// version is that of the previous record, if there was one.
func RecordText(r *subscriber.Record) string {
	text := make([]byte, 0, 320)
	text = appendTime(append(text, "started_at="...), r.StartedAt)
	text = appendTime(append(text, " updated_at="...), r.UpdatedAt)
	text = strconv.AppendUint(append(text, " input_octets="...), r.InputOctets, 10)
	text = strconv.AppendUint(append(text, " output_octets="...), r.OutputOctets, 10)
	text = appendWord(text, " user_name=", r.UserName)
	text = appendWord(text, " nas=", r.NAS)
	text = appendWord(text, " client=", r.Client)
	text = appendWord(text, " acct_session_id=", r.AcctSessionID)
	text = appendWord(text, " calling_station_id=", r.CallingStationID)
	text = appendWord(text, " class=", r.Class)
	if r.NASAddress.IsValid() {
		text = r.NASAddress.AppendTo(append(text, " nas_address="...))
	}
	if r.Unconfirmed {
		text = append(text, " unconfirmed=1"...)
	}
	for _, f := range rareFields(r) {
		if f.value != "" {
			text = appendWord(append(append(text, ' '), f.name...), "=", f.value)
		}
	}
	return string(appendWord(text, " version=", r.Version))
}

func appendWord(text []byte, name, value string) []byte {
	if value == "" {
		return text
	}
	return append(append(text, name...), Escape(value)...)
}

// ParseRecordText parses the result of RecordText.
func ParseRecordText(key subscriber.Key, text string) subscriber.Record {
	r := subscriber.Record{Key: key}
	for word := range strings.SplitSeq(text, " ") {
		name, value, _ := strings.Cut(word, "=")
		if raw, err := unescape(value); err == nil {
			setField(&r, name, raw)
		}
	}
	fillRecord(&r)
	return r
}

// ParseRecord parses a record hash. Operators may write into it: unreadable values are left
// zero.
func ParseRecord(key subscriber.Key, fields map[string]string) subscriber.Record {
	r := subscriber.Record{Key: key}
	for name, value := range fields {
		setField(&r, name, value)
	}
	fillRecord(&r)
	return r
}

// sessionFields holds the fields that identify a record's session, and its times.
var sessionFields = [...]string{"client", "nas", "acct_session_id", "started_at", "updated_at", "version"}

// AppendSessionFields appends the names of the fields that identify a record's session, and
// its times.
func AppendSessionFields(args []any) []any {
	for i := range sessionFields {
		args = append(args, &sessionFields[i])
	}
	return args
}

// ParseSessionFields parses the values of these fields, and reports whether there is a
// record.
func ParseSessionFields(key subscriber.Key, values []string) (subscriber.Record, bool) {
	r := subscriber.Record{Key: key}
	for i, value := range values {
		setField(&r, sessionFields[i], value)
	}
	if r.Version == "" && r.SessionID == (subscriber.SessionID{}) {
		return r, false
	}
	fillRecord(&r)
	return r, true
}

// setField sets one field of a record, and ignores unknown fields.
func setField(r *subscriber.Record, name, value string) {
	switch name {
	case "started_at":
		r.StartedAt = parseTime(value)
	case "updated_at":
		r.UpdatedAt = parseTime(value)
	case "input_octets":
		r.InputOctets, _ = strconv.ParseUint(value, 10, 64)
	case "output_octets":
		r.OutputOctets, _ = strconv.ParseUint(value, 10, 64)
	case "user_name":
		r.UserName = value
	case "nas":
		r.NAS = value
	case "client":
		r.Client = value
	case "acct_session_id":
		r.AcctSessionID = value
	case "calling_station_id":
		r.CallingStationID = value
	case "class":
		r.Class = value
	case "nas_address":
		r.NASAddress, _ = netip.ParseAddr(value)
	case "unconfirmed":
		r.Unconfirmed = value == "1"
	case "version":
		r.Version = value
	default:
		setRareField(r, name, value)
	}
}

func setRareField(r *subscriber.Record, name, value string) {
	switch name {
	case "framed_ipv6_addresses":
		r.FramedIPv6Addresses = splitTexts(value, netip.ParseAddr)
	case "framed_ipv6_prefixes":
		r.FramedIPv6Prefixes = splitTexts(value, netip.ParsePrefix)
	case "delegated_prefixes":
		r.DelegatedPrefixes = splitTexts(value, netip.ParsePrefix)
	case "multi_session_id":
		r.MultiSessionID = value
	case "links":
		r.Links = splitTexts(value, unescape)
	case "more_classes":
		r.MoreClasses = splitTexts(value, unescape)
	case "removal_held":
		r.RemovalHeld, _ = subscriber.ParseReason(value)
	case "leg":
		if value == "1" {
			r.Leg = r.Inside
		}
	}
}

// fillRecord sets the fields that the hash omits because others imply them: a record that
// was never updated has no update time.
func fillRecord(r *subscriber.Record) {
	if r.UpdatedAt.IsZero() {
		r.UpdatedAt = r.StartedAt
	}
	if r.Version == "" {
		r.Version = Unversioned
	}
}

// joinTexts joins addresses or prefixes to a text of words.
func joinTexts[T interface{ String() string }](list []T) string {
	var text []byte
	for i, x := range list {
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(text, x.String()...)
	}
	return string(text)
}

// joinWords joins raw octets to a text of words.
func joinWords(list []string) string {
	words := make([]string, len(list))
	for i, raw := range list {
		words[i] = Escape(raw)
	}
	return strings.Join(words, " ")
}

// splitTexts parses words, and skips unreadable ones.
func splitTexts[T any](text string, parse func(string) (T, error)) []T {
	var list []T
	for word := range strings.FieldsSeq(text) {
		if x, err := parse(word); err == nil {
			list = append(list, x)
		}
	}
	return list
}

// FormatAddr returns an address as text, "" for none.
func FormatAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

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
