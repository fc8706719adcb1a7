package codec

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// FuzzNATHolder: the line of a block is parsed as it was written, for all octets from a NAS, and is
// one line without the words of others (LOG-10).
func FuzzNATHolder(f *testing.F) {
	f.Add("alice", "bng1", "nas1", "0001", "00:11", int64(1), uint16(1024))
	f.Add("a b\n2026 allocated_at=x", "%2F", "\x00\xff=", "-", " ", int64(-1), uint16(65535))
	f.Fuzz(func(t *testing.T, user, client, name, session, calling string, at int64, first uint16) {
		e := natEvent(user, client, name, session, calling)
		e.At, e.First, e.Last = time.Unix(0, at).UTC(), nat.Port(first), nat.Port(first|511)
		line := string(AppendNATLine(nil, e.At, e.Block, &e.Holder))
		if strings.ContainsAny(line, "\n\r\x00") || strings.Contains(line, " allocated_at=") {
			t.Errorf("%q is more than a line", line)
		}
		if got, err := ParseNATLine("default", line); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%q: %+v comes back as %+v, %v", line, e, got, err)
		}
	})
}

// FuzzNATLine: no text makes the parser panic, and what it accepts is written in a form that it
// parses alike.
func FuzzNATLine(f *testing.F) {
	f.Add("2026-03-01T10:00:00.000000000Z 198.51.100.1:1024-1535 100.64.0.1 user_name=a%20b")
	f.Add("2026-03-01T10:00:00.000000000Z 2001:db8::1:0-65535 100.64.0.1 ipv6_prefix=2001:db8::/48 ipv6_prefix=2001:db8:1::/56 nas_address=fe80::1%25eth0")
	f.Add("2026-03-01T10:00:00.000000000Z 198.51.100.1:1535-1024 100.64.0.1 allocated_at=2026-03-01T09:00:00.000000000Z")
	f.Fuzz(func(t *testing.T, line string) {
		e, err := ParseNATLine("default", line)
		_ = NATAllocatedAt(line, e.At)
		if err != nil {
			return
		}
		again, err := ParseNATLine("default", string(AppendNATLine(nil, e.At, e.Block, &e.Holder)))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q: %+v comes back as %+v, %v", line, e, again, err)
		}
	})
}

// TestNATStampsCompareAsTexts_LOG08: texts of times have the order of the times.
func TestNATStampsCompareAsTexts_LOG08(t *testing.T) {
	times := []time.Time{
		{}, time.Unix(0, 0), t0, t0.Add(1), t0.Add(time.Millisecond), t0.Add(time.Second), t0.AddDate(8000, 0, 0),
	}
	for i := 1; i < len(times); i++ {
		if a, b := NATStamp(times[i-1]), NATStamp(times[i]); a >= b || len(a) != len(b) {
			t.Errorf("%q is not before %q", a, b)
		}
	}
}

func natEvent(user, client, nasName, session, calling string) nat.Event {
	return nat.Event{
		Kind: nat.Allocated, Group: "default",
		Block: nat.Block{Outside: netip.MustParseAddr("198.51.100.1")},
		Holder: nat.Identity{
			Inside: addr, UserName: user, Client: client, NAS: nasName, NASAddress: netip.MustParseAddr("192.0.2.1"),
			AcctSessionID: session, CallingStationID: calling,
			IPv6Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::/48"), netip.MustParsePrefix("2001:db8:1::/56")},
		},
	}
}
