package codec

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

var (
	t0   = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	addr = netip.MustParseAddr("100.64.0.1")
)

// FuzzSessionRef: the reference of a session is parsed to the same session, for all octets.
func FuzzSessionRef(f *testing.F) {
	f.Add("bng1", "192.0.2.1", "0000A1")
	f.Add("", "a/b%2F", "\x00\xff")
	f.Fuzz(func(t *testing.T, client, nas, session string) {
		id := subscriber.SessionID{Client: client, NAS: nas, AcctSessionID: session}
		if got, err := ParseSessionRef(string(AppendSessionRef(nil, id))); err != nil || got != id {
			t.Errorf("%q comes back as %q, %v", id, got, err)
		}
	})
}

// FuzzParseState: a parsed state line is written in a form that is parsed to the same
// state.
func FuzzParseState(f *testing.F) {
	f.Add("open 100.64.0.1 2026-03-01T10:00:00Z - alice")
	f.Add("closed/MOVED - 2026-03-01T10:00:00Z 2026-03-01T11:00:00.5Z -")
	f.Add("open - 0000-01-01T00:00:00+01:00 9999-12-31T23:59:59-01:00 a")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := ParseState(line)
		if err != nil || line == "" {
			return
		}
		again, err := ParseState(FormatState(&s))
		if err != nil || again != s {
			t.Errorf("%q: %+v comes back as %+v, %v", line, s, again, err)
		}
	})
}

// FuzzRestart: a parsed restart is written in a form that is parsed to the same restart.
func FuzzRestart(f *testing.F) {
	f.Add("2026-03-01T10:00:00Z 5-0")
	f.Add("confirm/stamp=1772359200/packets=a1,b2/2026-03-01T10:00:00.5Z 5-0")
	f.Fuzz(func(t *testing.T, line string) {
		r := ParseRestart(line)
		if again := ParseRestart(FormatRestart(&r) + " " + r.ID); again != r {
			t.Errorf("%q: %+v comes back as %+v", line, r, again)
		}
	})
}

// FuzzRecordKey: a parsed record key is the key of that record.
func FuzzRecordKey(f *testing.F) {
	f.Add("sessiond:{default}:sub:100.64.0.1")
	f.Add("sessiond:{a}:sub:{b}:sub:::ffff:100.64.0.1")
	f.Fuzz(func(t *testing.T, key string) {
		k, ok := ParseRecordKey(key)
		if !ok || !ValidGroupName(k.Group) {
			return
		}
		if again, ok := ParseRecordKey(RecordKey(k.Group, k.Inside)); !ok || again != k {
			t.Errorf("%q: %v comes back as %v", key, k, again)
		}
	})
}

// FuzzOnlineEntry: a parsed online entry is written in a form that is parsed to the same
// record, and has the NAS of the session.
func FuzzOnlineEntry(f *testing.F) {
	f.Add("bng1/nas%201/0000A1 alice 1772359200000")
	f.Add("bng1/nas1/1/100.64.0.1 - 0")
	f.Fuzz(func(t *testing.T, text string) {
		key := subscriber.Key{Group: "default", Inside: addr}
		r, err := ParseOnlineEntry(key, text)
		if err != nil {
			return
		}
		line := FormatOnlineEntry(&r)
		again, err := ParseOnlineEntry(key, line)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%q: %+v comes back as %+v, %v", text, r, again, err)
		}
		if nas := NASOfOnlineEntry(line); nas != NASRef(r.SessionID) {
			t.Errorf("%q names the NAS %q, want %q", line, nas, NASRef(r.SessionID))
		}
	})
}

// FuzzRecordText: a record parsed from the feed is written in a form that is parsed to the
// same record.
func FuzzRecordText(f *testing.F) {
	f.Add("started_at=2026-03-01T10:00:00Z updated_at=2026-03-01T11:00:00Z input_octets=1 output_octets=2 user_name=a%20b nas=n client=c acct_session_id=1 leg=1 links=a%20b removal_held=EXPIRED version=5-0")
	f.Add("started_at=0000-01-01T00:00:00+01:00 updated_at=9999-12-31T23:59:59-01:00")
	f.Add("delegated_prefixes=2001:db8::/56%202001:db8:1::/56 framed_ipv6_addresses=2001:db8::1 nas_address=192.0.2.1 unconfirmed=1")
	f.Fuzz(func(t *testing.T, text string) {
		key := subscriber.Key{Group: "default", Inside: addr}
		r := ParseRecordText(key, text)
		if again := ParseRecordText(key, RecordText(&r)); !reflect.DeepEqual(again, r) {
			t.Errorf("%q: %+v comes back as %+v", text, r, again)
		}
	})
}

// FuzzFeedEntry: no feed entry makes the parser panic, and all changes in it are of the
// group's records.
func FuzzFeedEntry(f *testing.F) {
	f.Add("5-0", "deleted", "100.64.0.1", "60000", "EXPIRED", "2", "user_name=a", "")
	f.Add("x", "began", "", "-1", "", "", "", "100.64.0.1 user_name=a\n\nx")
	f.Add("5-0", "nas_restart", "", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, id, kind, inside, ttl, reason, cause, record, list string) {
		e := FeedEntry{ID: id, Fields: map[string]any{
			"kind": kind, "inside": inside, "ttl": ttl, "reason": reason, "cause": cause, "record": record,
		}}
		if list != "" {
			e.Fields["list"] = list
		}
		p := NewFeedParser("default", e.Changes(), nil)
		p.Parse(e)
		if len(p.Changes) > e.Changes() {
			t.Errorf("%d changes, want %d at most", len(p.Changes), e.Changes())
		}
		for i := range p.Changes {
			if r := p.Changes[i].Record.Record(); r.Group != "default" || !r.Inside.IsValid() {
				t.Errorf("change %d is of %v", i, r.Key)
			}
		}
	})
}

// TestServedHasPrefixesOfIPv4: a served configuration with another prefix than configurations have is
// garbage: calculations with addresses would end the program.
func TestServedHasPrefixesOfIPv4(t *testing.T) {
	for _, field := range []string{`"inside":[%q]`, `"outside":[%q]`, `"draining":[%q]`, `"terms":{"no_nat":[{"prefix":%q}]}`} {
		for prefix, good := range map[string]bool{"100.64.0.0/24": true, "2001:db8::/32": false, "::ffff:100.64.0.0/120": false, "100.64.0.1/24": false, "": false} {
			_, err := ParseServed("default", fmt.Appendf(nil, `{"hold":"2s","record_ttl":"1h",`+field+`,"guard":{"window":"1m"}}`, prefix))
			if (err == nil) != good {
				t.Errorf("%s with %q: %v", field, prefix, err)
			}
		}
	}
}

// FuzzServed: a parsed served configuration is written in a form that is parsed to the same
// one.
func FuzzServed(f *testing.F) {
	f.Add([]byte(`{"by":"n","inside":["100.64.0.0/24"],"outside":["198.51.100.0/30"],"first_port":1024,"last_port":65535,"block_size":512,"hold":"2m0s","record_ttl":"45m0s","guard":{"minimum":10,"removed":0.1,"expired":0,"nas_restart":0,"window":"1m0s"}}`))
	f.Add([]byte(`{"hold":"2s","max_blocks":2,"terms":{"limits":{"sessions":5},"learned":{"endpoint_independent":true},"idle_timeouts":{"udp":"5m0s"},"port_timeouts":[{"protocol":17,"port":53,"timeout":"3s"}],"no_nat":[{"prefix":"192.0.2.0/24","first_port":0,"last_port":65535}]}}`))
	f.Add([]byte(`{"guard":null,"hold":"1e9h"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseServed("default", text)
		if err != nil {
			return
		}
		line, err := FormatServed(&s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseServed("default", line)
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%s: %+v comes back as %+v, %v", text, s, again, err)
		}
	})
}

// FuzzMarker: a parsed marker is written in a form that is parsed to the same marker.
func FuzzMarker(f *testing.F) {
	f.Add([]byte(`{"epoch":"A","created_at":"2026-03-01T10:00:00Z","node":"n"}`))
	f.Add([]byte(`{"epoch":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, ok := ParseMarker(text)
		if !ok {
			return
		}
		line, err := FormatMarker(m)
		if err != nil {
			return // a year that JSON cannot express
		}
		again, ok := ParseMarker(line)
		if !ok || again.Epoch != m.Epoch || again.Node != m.Node || !again.CreatedAt.Equal(m.CreatedAt) {
			t.Errorf("%s: %+v comes back as %+v", text, m, again)
		}
	})
}
