package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/netsampler/goflow2/v2/decoders/netflow"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/rawtext"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 123_000_000, time.UTC)

// hostile is a User-Name that tries to leave its place in each of the forms.
const hostile = "a\"] <13>1 \\\r\n\x00\xff%41é"

// kinds returns an event of each kind.
func kinds() []nat.Event {
	holder := nat.Identity{
		Inside: netip.MustParseAddr("100.64.0.7"), UserName: "alice@isp", Client: "bng", NAS: "bng-1",
		NASAddress: netip.MustParseAddr("192.0.2.1"), AcctSessionID: "0A0B", CallingStationID: "00-11-22-33-44-55",
		IPv6Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/56")},
	}
	block := nat.Block{Outside: netip.MustParseAddr("198.51.100.7"), First: 1024, Last: 1535}
	rude := holder
	rude.UserName, rude.AcctSessionID = hostile, strings.Repeat("\x01", 253)
	return []nat.Event{
		{Kind: nat.Allocated, At: noon, Group: "default", Block: block, Holder: holder},
		{Kind: nat.Interim, At: noon.Add(24 * time.Hour), Since: noon, Group: "default", Block: block, Holder: holder},
		{Kind: nat.Released, At: noon.Add(25 * time.Hour), Since: noon, Group: "default", Block: block, Holder: rude},
		{Kind: nat.AddressesExhausted, At: noon, Group: "default"},
		{Kind: nat.PortsExhausted, At: noon, Group: "default", Block: nat.Block{Outside: block.Outside}, Holder: holder},
		{Kind: nat.LimitReached, At: noon, Group: "default", Holder: holder, Limit: nat.LimitTCPPorts, Most: 1000},
	}
}

// someEvents returns random events.
func someEvents(random *rand.Rand, n int) []nat.Event {
	list, of := make([]nat.Event, n), kinds()
	for i := range list {
		list[i] = of[random.IntN(len(of))]
		list[i].At = noon.Add(time.Duration(i) * time.Millisecond)
		list[i].Holder.UserName = strings.Repeat("é", random.IntN(300))
	}
	return list
}

// decoded is a data record as goflow2 reads it: values by element.
type decoded map[uint16][]byte

// expected returns the record of an event, as the RFC asks and with no code of this package but
// PoolID.
func expected(e *nat.Event, name string) decoded {
	number := func(size int, n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n)[8-size:] }
	d := decoded{323: number(8, uint64(e.At.UnixMilli()))}
	address := func(id uint16, a netip.Addr) { d[id] = a.AsSlice() }
	switch e.Kind {
	case nat.Allocated, nat.Interim, nat.Released:
		d[230] = number(1, map[nat.EventKind]uint64{nat.Allocated: 16, nat.Interim: 16, nat.Released: 17}[e.Kind])
		address(8, e.Holder.Inside)
		address(225, e.Outside)
		d[361], d[362], d[283] = number(2, uint64(e.First)), number(2, uint64(e.Last)), number(4, uint64(PoolID(e.Group)))
		d[371] = []byte(name)
	case nat.AddressesExhausted:
		d[230], d[283] = number(1, 3), number(4, uint64(PoolID(e.Group)))
	case nat.PortsExhausted:
		d[230], d[4] = number(1, 12), number(1, 0)
		address(225, e.Outside)
		address(8, e.Holder.Inside)
	case nat.LimitReached:
		d[230], d[466], d[473] = number(1, 13), number(4, 3), number(4, uint64(e.Most))
		address(8, e.Holder.Inside)
		d[371] = []byte(name)
	}
	return d
}

// records returns the data records of sets.
func records(t *testing.T, sets []any) (list []decoded) {
	t.Helper()
	for _, set := range sets {
		data, ok := set.(netflow.DataFlowSet)
		if !ok {
			if _, ok := set.(netflow.TemplateFlowSet); !ok {
				t.Fatalf("a set is %T", set)
			}
			continue
		}
		for _, r := range data.Records {
			d := decoded{}
			for _, f := range r.Values {
				d[f.Type] = f.Value.([]byte)
			}
			list = append(list, d)
		}
	}
	return list
}

// TestCollectorReadsAll_LOG01_LOG02_LOG03_LOG05: goflow2 reads each message by the templates
// before it, finds all fields, and the sequence numbers that it expects; no message is longer
// than the limit.
func TestCollectorReadsAll_LOG01_LOG02_LOG03_LOG05(t *testing.T) {
	random := rand.New(rand.NewPCG(15, 1))
	for _, limit := range []int{LeastMessage, 512, 1400, 16 << 10} {
		for _, events := range [][]nat.Event{kinds(), someEvents(random, 500), nil} {
			ipfix := func(t *testing.T, fixed bool, name func(*nat.Event) string) {
				x := &IPFIX{Domain: 7, FixedNames: fixed}
				known, count, rest := netflow.CreateTemplateSystem(), 0, events
				for first := true; first || len(rest) > 0; first = false {
					b, packed := x.Pack([]byte("before"), rest, limit, count%50 == 0, noon)
					b = b[len("before"):]
					if len(b) > limit || packed == 0 && len(rest) > 0 {
						t.Fatalf("a message of %d octets with %d events", len(b), packed)
					}
					var p netflow.IPFIXPacket
					if err := netflow.DecodeMessageVersion(bytes.NewBuffer(b), known, nil, &p); err != nil {
						t.Fatal(err)
					}
					if p.Version != 10 || int(p.Length) != len(b) || p.ExportTime != uint32(noon.Unix()) || p.ObservationDomainId != 7 || p.SequenceNumber != uint32(count) {
						t.Fatalf("header %+v of %d octets behind %d records", p, len(b), count)
					}
					check(t, records(t, p.FlowSets), rest[:packed], name)
					count, rest = count+packed, rest[packed:]
				}
			}
			t.Run(fmt.Sprintf("ipfix/limit=%d/events=%d", limit, len(events)), func(t *testing.T) {
				ipfix(t, false, func(e *nat.Event) string { return cutText(rawtext.Of(e.Holder.UserName), variableNameSize) })
			})
			t.Run(fmt.Sprintf("ipfix fixed/limit=%d/events=%d", limit, len(events)), func(t *testing.T) { ipfix(t, true, paddedName) })
			t.Run(fmt.Sprintf("netflow9/limit=%d/events=%d", limit, len(events)), func(t *testing.T) {
				x := &NetFlow9{Source: 9, Began: noon.Add(-time.Minute)}
				known, count, rest := netflow.CreateTemplateSystem(), uint32(0), events
				for ; count == 0 || len(rest) > 0; count++ {
					b, packed := x.Pack(nil, rest, limit, count%50 == 0, noon)
					if len(b) > limit || len(b)%4 != 0 || packed == 0 && len(rest) > 0 {
						t.Fatalf("a packet of %d octets with %d events", len(b), packed)
					}
					var p netflow.NFv9Packet
					if err := netflow.DecodeMessageVersion(bytes.NewBuffer(b), known, &p, nil); err != nil {
						t.Fatal(err)
					}
					want := packed
					if count%50 == 0 {
						want += 4
					}
					if p.Version != 9 || int(p.Count) != want || p.SystemUptime != 60_000 || p.UnixSeconds != uint32(noon.Unix()) || p.SourceId != 9 || p.SequenceNumber != count {
						t.Fatalf("header %+v of %d events behind %d packets", p, packed, count)
					}
					check(t, records(t, p.FlowSets), rest[:packed], paddedName)
					rest = rest[packed:]
				}
			})
		}
	}
}

func paddedName(e *nat.Event) string {
	name := cutText(rawtext.Of(e.Holder.UserName), fixedNameSize)
	return name + strings.Repeat("\x00", fixedNameSize-len(name))
}

func check(t *testing.T, got []decoded, events []nat.Event, name func(*nat.Event) string) {
	t.Helper()
	if len(got) != len(events) {
		t.Fatalf("%d records of %d events", len(got), len(events))
	}
	for i := range events {
		if want := expected(&events[i], name(&events[i])); !reflect.DeepEqual(got[i], want) {
			t.Fatalf("a record of %v is %v, want %v", events[i].Kind, got[i], want)
		}
	}
}

func TestTextsAreCutBetweenCharacters(t *testing.T) {
	for _, tt := range []struct {
		text string
		most int
		want string
	}{
		{"alice", 5, "alice"}, {"alice", 4, "alic"}, {"aé", 2, "a"}, {"é", 1, ""}, {"a%0Db", 4, "a%0D"}, {"a%0Db", 3, "a"}, {"a%0Db", 2, "a"}, {"", 0, ""},
	} {
		if got := cutText(tt.text, tt.most); got != tt.want {
			t.Errorf("%q cut to %d is %q, want %q", tt.text, tt.most, got, tt.want)
		}
	}
}

func TestSyslogMessages_LOG08_LOG09_LOG11(t *testing.T) {
	s := Syslog{PEN: ExamplePEN, Node: "cgn-1", ProcessID: 77}
	want := []string{
		`<134>1 2026-11-30T12:00:00.123Z cgn-1 sessiond 77 block-allocated [nat@32473 group="default" outside="198.51.100.7" first="1024" last="1535" inside="100.64.0.7" user="alice@isp" client="bng" nas="bng-1" nas-address="192.0.2.1" session="0A0B" station="00-11-22-33-44-55" ipv6="2001:db8:1::/56"]`,
		`<134>1 2026-12-01T12:00:00.123Z cgn-1 sessiond 77 block-interim [nat@32473 group="default" outside="198.51.100.7" first="1024" last="1535" since="2026-11-30T12:00:00.123Z" inside=`,
		`<134>1 2026-12-01T13:00:00.123Z cgn-1 sessiond 77 block-released [nat@32473 group="default" outside="198.51.100.7" first="1024" last="1535" since="2026-11-30T12:00:00.123Z" inside="100.64.0.7" user="a\"\] <13>1 \\%0D%0A%00%FF%2541é" client=`,
		`<133>1 2026-11-30T12:00:00.123Z cgn-1 sessiond 77 addresses-exhausted [nat@32473 group="default"]`,
		`<133>1 2026-11-30T12:00:00.123Z cgn-1 sessiond 77 ports-exhausted [nat@32473 group="default" outside="198.51.100.7" inside="100.64.0.7" user=`,
		`<133>1 2026-11-30T12:00:00.123Z cgn-1 sessiond 77 limit-reached [nat@32473 group="default" limit="tcp_ports" most="1000" inside="100.64.0.7" user=`,
	}
	for i, e := range kinds() {
		if got := string(s.Append(nil, &e)); !strings.HasPrefix(got, want[i]) || strings.HasSuffix(want[i], "]") && got != want[i] {
			t.Errorf("the message of %v is\n%s\nwant\n%s", e.Kind, got, want[i])
		}
	}
	s = Syslog{PEN: 1, Node: "no host\n"}
	if got := string(s.Append(nil, &kinds()[3])); !strings.Contains(got, "Z - sessiond 0 ") || !strings.Contains(got, "[nat@1 ") {
		t.Errorf("without a host name: %s", got)
	}
}

// FuzzSyslog: whatever a name has, a message is one line of UTF-8 of at most 2,048 octets, and
// its parameters give the octets back, unless they were cut.
func FuzzSyslog_LOG10(f *testing.F) {
	f.Add("alice", "0A0B", "00-11-22-33-44-55")
	f.Add(hostile, strings.Repeat("\xff", 253), strings.Repeat(`"`, 253))
	f.Add(strings.Repeat("\"", 253), strings.Repeat("]", 253), strings.Repeat("%41", 84))
	f.Fuzz(func(t *testing.T, user, session, station string) {
		for _, x := range []*string{&user, &session, &station} {
			*x = (*x)[:min(len(*x), 253)] // of an attribute
		}
		e := kinds()[0]
		e.Holder.UserName, e.Holder.AcctSessionID, e.Holder.CallingStationID = user, session, station
		s := Syslog{PEN: ExamplePEN, Node: "cgn-1"}
		message := string(s.Append(nil, &e))
		if len(message) > 2048 || !utf8.ValidString(message) || strings.ContainsFunc(message, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("a message of %d octets: %q", len(message), message)
		}
		got := syslogParameters(t, message)
		if got["cut"] != "" {
			return
		}
		for name, want := range map[string]string{"user": user, "session": session, "station": station} {
			if rawtext.Octets(got[name]) != want {
				t.Fatalf("%s is %q, want %q", name, got[name], want)
			}
		}
	})
}

// syslogParameters reads the structured data of a message by the grammar of RFC 5424 section 6.
func syslogParameters(t *testing.T, message string) map[string]string {
	t.Helper()
	_, data, ok := strings.Cut(message, " [nat@32473")
	if !ok {
		t.Fatalf("no structured data in %q", message)
	}
	found := map[string]string{}
	for strings.HasPrefix(data, " ") {
		name, rest, _ := strings.Cut(data[1:], `="`)
		var value strings.Builder
		i := 0
		for ; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == ']' {
				t.Fatalf("a bracket without its backslash in %q", message)
			}
			if rest[i] == '\\' {
				i++
			}
			value.WriteByte(rest[i])
		}
		found[name], data = value.String(), rest[i+1:]
	}
	if data != "]" {
		t.Fatalf("%q is left of %q", data, message)
	}
	return found
}

func TestJSONLines(t *testing.T) {
	for _, e := range kinds() {
		line, err := AppendJSON([]byte("before"), &e)
		if err != nil {
			t.Fatal(err)
		}
		line = line[len("before"):]
		var any map[string]any
		if err := json.Unmarshal(line, &any); err != nil || any["event"] != e.Kind.String() || bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%s: %v", line, err)
		}
		if back, err := ParseJSON(line); err != nil || !reflect.DeepEqual(back, e) {
			t.Errorf("%s\nis read as %+v, %v, want %+v", line, back, err, e)
		}
	}
	if e, err := ParseJSON([]byte(`{"event":"allocated","from":"the future"}`)); err != nil || e.Kind != nat.Allocated {
		t.Errorf("an event of a later version: %v, %v", e, err)
	}
	for text, want := range map[string]string{
		``:                                      "read an event: EOF",
		`{}`:                                    `the kind "" is unknown`,
		`{"event":"began"}`:                     `the kind "began" is unknown`,
		`{"event":"allocated"} {`:               "more than one",
		`{"event":"limit_reached","limit":"x"}`: `the limit "x" is unknown`,
		`{"event":"allocated","outside":"1.2.3"}`:  "ParseAddr",
		`{"event":"allocated","first_port":65536}`: "first_port",
	} {
		if _, err := ParseJSON([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// FuzzParseJSON: no line makes the parser fail but by an error, and an event that it reads is
// written and read again alike.
func FuzzParseJSON(f *testing.F) {
	for _, e := range kinds() {
		line, err := AppendJSON(nil, &e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := ParseJSON(line)
		if err != nil {
			return
		}
		again, err := AppendJSON(nil, &e)
		if err != nil {
			return // a year that JSON cannot write
		}
		if back, err := ParseJSON(again); err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("%s\nis read as %+v, %v, want %+v", again, back, err, e)
		}
	})
}
