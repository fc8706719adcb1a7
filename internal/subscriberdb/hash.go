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

// field is one field of a record hash.
type field struct{ name, value string }

// recordFields are the fields of a record hash, except its version, which the
// script knows.
func recordFields(r *subscriber.Record) [11]field {
	return [...]field{
		{"user_name", r.UserName},
		{"nas", r.NAS},
		{"client", r.Client},
		{"acct_session_id", r.AcctSessionID},
		{"calling_station_id", r.CallingStationID},
		{"nas_address", formatAddr(r.NASAddress)},
		{"started_at", formatTime(r.StartedAt)},
		{"updated_at", formatTime(r.UpdatedAt)},
		{"input_octets", strconv.FormatUint(r.InputOctets, 10)},
		{"output_octets", strconv.FormatUint(r.OutputOctets, 10)},
		{"unconfirmed", formatBool(r.Unconfirmed)},
	}
}

// changedFields lists the fields, name after value, in which the record differs
// from the one that stands; all of them where none does.
func changedFields(stands, r *subscriber.Record) []any {
	fields := recordFields(r)
	list := make([]any, 0, 2*len(fields))
	if stands == nil {
		for _, f := range fields {
			list = append(list, f.name, f.value)
		}
		return list
	}
	old := recordFields(stands)
	for i, f := range fields {
		if f != old[i] {
			list = append(list, f.name, f.value)
		}
	}
	return list
}

// recordText is a record as it stands in the feed: its fields as words, those
// with a value. The version is that of the record before, if there was one.
func recordText(r *subscriber.Record) string {
	text := make([]byte, 0, 256)
	for _, f := range recordFields(r) {
		text = appendWord(text, f)
	}
	return string(appendWord(text, field{"version", r.Version}))
}

func appendWord(text []byte, f field) []byte {
	if f.value == "" {
		return text
	}
	if len(text) > 0 {
		text = append(text, ' ')
	}
	text = append(append(text, f.name...), '=')
	return append(text, escape(f.value)...)
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
	if r.Version == "" {
		r.Version = unversioned
	}
	return r
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func formatAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func formatBool(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// pairs turns the flat reply of HGETALL in a script into a map.
func pairs(reply any) map[string]string {
	flat, _ := reply.([]any)
	fields := make(map[string]string, len(flat)/2)
	for i := 0; i+1 < len(flat); i += 2 {
		name, _ := flat[i].(string)
		fields[name], _ = flat[i+1].(string)
	}
	return fields
}
