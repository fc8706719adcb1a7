package subscriberdb

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// unversioned stands for the version of a record that somebody wrote by hand
// without one.
const unversioned = "-"

// appendFields appends the fields of a record hash, name and value, except its
// version, which the script knows. What an Interim changes comes first, where
// Redis finds it first. Empty fields are left out unless the record is written
// over another.
func appendFields(args []any, r *subscriber.Record, over bool) []any {
	args = append(args, "updated_at", timeArg(&r.UpdatedAt),
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
	} {
		if over || *f.value != "" {
			args = append(args, f.name, f.value)
		}
	}
	args = append(args, "started_at", timeArg(&r.StartedAt), "unconfirmed", &r.Unconfirmed)
	if over || r.NASAddress.IsValid() {
		args = append(args, "nas_address", formatAddr(r.NASAddress))
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

// rareFields are the fields that few records have a value of.
func rareFields(r *subscriber.Record) [6]field {
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
		{"leg", leg},
	}
}

// plain reports whether the record has no value of a rare field.
func plain(r *subscriber.Record) bool {
	return len(r.FramedIPv6Addresses) == 0 && len(r.FramedIPv6Prefixes) == 0 && len(r.DelegatedPrefixes) == 0 &&
		r.MultiSessionID == "" && len(r.Links) == 0 && !r.Leg.IsValid()
}

// recordText is a record as it stands in the feed: its fields as words, those
// with a value. The version is that of the record before, if there was one.
func recordText(r *subscriber.Record) string {
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
	return append(append(text, name...), escape(value)...)
}

// parseRecordText reads what recordText wrote into the fields of a hash.
func parseRecordText(text string) map[string]string {
	fields := make(map[string]string, 12)
	for word := range strings.SplitSeq(text, " ") {
		name, value, _ := strings.Cut(word, "=")
		if raw, err := unescape(value); err == nil {
			fields[name] = raw
		}
	}
	return fields
}

// timeArg lets the client format the time, which is in UTC; no text for none.
func timeArg(t *time.Time) any {
	if t.IsZero() {
		return ""
	}
	return t
}

// parseRecord reads a record hash. People may write into it: what cannot be
// read is left zero.
func parseRecord(key subscriber.Key, fields map[string]string) subscriber.Record {
	r := subscriber.Record{
		Key: key,
		SessionID: subscriber.SessionID{
			Client:        fields["client"],
			NAS:           fields["nas"],
			AcctSessionID: fields["acct_session_id"],
		},
		UserName:         fields["user_name"],
		CallingStationID: fields["calling_station_id"],
		StartedAt:        parseTime(fields["started_at"]),
		UpdatedAt:        parseTime(fields["updated_at"]),
		Unconfirmed:      fields["unconfirmed"] == "1",
		Version:          fields["version"],
	}
	r.NASAddress, _ = netip.ParseAddr(fields["nas_address"])
	r.InputOctets, _ = strconv.ParseUint(fields["input_octets"], 10, 64)
	r.OutputOctets, _ = strconv.ParseUint(fields["output_octets"], 10, 64)
	r.FramedIPv6Addresses = splitTexts(fields["framed_ipv6_addresses"], netip.ParseAddr)
	r.FramedIPv6Prefixes = splitTexts(fields["framed_ipv6_prefixes"], netip.ParsePrefix)
	r.DelegatedPrefixes = splitTexts(fields["delegated_prefixes"], netip.ParsePrefix)
	r.MultiSessionID = fields["multi_session_id"]
	r.Links = splitTexts(fields["links"], unescape)
	if fields["leg"] == "1" {
		r.Leg = key.Inside
	}
	if r.Version == "" {
		r.Version = unversioned
	}
	return r
}

// parseRefreshed reads what a feed entry tells of one refreshed record: event
// time, octets in and out.
func parseRefreshed(key subscriber.Key, text string) (subscriber.Record, bool) {
	r := subscriber.Record{Key: key}
	words := strings.Split(text, " ")
	if len(words) != 3 {
		return r, false
	}
	var errIn, errOut error
	r.UpdatedAt = parseTime(words[0])
	r.InputOctets, errIn = strconv.ParseUint(words[1], 10, 64)
	r.OutputOctets, errOut = strconv.ParseUint(words[2], 10, 64)
	return r, errIn == nil && errOut == nil
}

func formatTime(t time.Time) string { return string(appendTime(nil, t)) }

func appendTime(text []byte, t time.Time) []byte {
	if t.IsZero() {
		return text
	}
	return t.UTC().AppendFormat(text, time.RFC3339Nano)
}

func parseTime(s string) time.Time {
	if s == "" || s == "-" {
		return time.Time{} // an error would be dear
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// joinTexts writes addresses or prefixes as words.
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

// joinWords writes raw octets as words.
func joinWords(list []string) string {
	words := make([]string, len(list))
	for i, raw := range list {
		words[i] = escape(raw)
	}
	return strings.Join(words, " ")
}

// splitTexts reads words, leaving out those that cannot be read.
func splitTexts[T any](text string, parse func(string) (T, error)) []T {
	var list []T
	for word := range strings.FieldsSeq(text) {
		if x, err := parse(word); err == nil {
			list = append(list, x)
		}
	}
	return list
}

func formatAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
