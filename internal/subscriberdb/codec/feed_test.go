package codec

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// FuzzFeedLine: no line of a feed entry makes the parser panic, and a parsed Stop is
// written as the same line.
func FuzzFeedLine(f *testing.F) {
	f.Add(kindStopped, "100.64.0.1 2 2026-03-01T10:00:00Z 7 9")
	f.Add(kindBegan, "100.64.0.1 started_at=2026-03-01T10:00:00Z user_name=a%20b nas=n client=c acct_session_id=1")
	f.Add(kindRefreshed, "100.64.0.1 2026-03-01T10:00:00Z 7 9")
	f.Fuzz(func(t *testing.T, kind, line string) {
		var c, again subscriber.Change
		r, ok := parseLine(&c, "default", kind, line)
		if !ok || c.Kind != subscriber.Deleted {
			return
		}
		text := string(AppendEnd(append(r.Inside.AppendTo(nil), ' '), &subscriber.Ending{Record: r, End: subscriber.End{Cause: c.Cause}}))
		if s, ok := parseLine(&again, "default", kind, text); !ok || again != c || !reflect.DeepEqual(s, r) {
			t.Errorf("%q: %+v %+v comes back as %+v %+v", line, c, r, again, s)
		}
	})
}

// FuzzRefreshed: a refreshed record parsed from the feed is written in a form that is
// parsed to the same record.
func FuzzRefreshed(f *testing.F) {
	f.Add("2026-03-01T10:00:00Z 7 0")
	key := subscriber.Key{Group: "default", Inside: addr}
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parseRefreshed(key, text)
		if !ok {
			return
		}
		again, ok := parseRefreshed(key, fmt.Sprintf("%s %d %d", FormatTime(r.UpdatedAt), r.InputOctets, r.OutputOctets))
		if !ok || !reflect.DeepEqual(again, r) {
			t.Errorf("%q: %+v comes back as %+v", text, r, again)
		}
	})
}

// TestStoppedWithoutReason: an entry from a version without reasons in batches holds Stops,
// and a reader of such a version takes any entry for Stops.
func TestStoppedWithoutReason(t *testing.T) {
	line := addr.String() + " 0 " + FormatTime(t0) + " 1 2"
	for reason, want := range map[string]subscriber.Reason{
		"": subscriber.ReasonStop, "NAS_RESTART": subscriber.ReasonNASRestart, "not known yet": subscriber.ReasonStop,
	} {
		entry := FeedEntry{ID: "5-0", Fields: map[string]any{"kind": kindStopped, "list": strings.Join([]string{line, line}, "\n")}}
		if reason != "" {
			entry.Fields["reason"] = reason
		}
		p := NewFeedParser("default", entry.Changes(), nil)
		if !p.Parse(entry) {
			t.Errorf("reason %q: not usable", reason)
		}
		list := p.Changes
		if len(list) != 2 || list[1].Kind != subscriber.Deleted || list[1].Reason != want || !list[1].Partial {
			t.Errorf("reason %q: %+v", reason, list)
		}
	}
}
