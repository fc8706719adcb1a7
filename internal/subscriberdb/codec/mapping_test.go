package codec

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

func mappingExample() nat.Mapping {
	return nat.Mapping{
		Group: "default", Kind: nat.MappingStatic, Owner: nat.Owner{UserName: "alice"}, InsidePort: 22,
		Outside:   nat.Endpoint{Protocol: nat.ProtocolTCP, AddrPort: netip.MustParseAddrPort("198.51.100.1:60022")},
		CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), ExpiresAt: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC),
	}
}

func TestMapping(t *testing.T) {
	user := mappingExample()
	fixed := user
	fixed.Owner, fixed.Outside.Protocol = nat.Owner{Inside: netip.MustParseAddr("100.64.0.7")}, nat.ProtocolUDP
	raw := user
	raw.Owner.UserName, raw.HoldUntil = "al\xffice", user.ExpiresAt
	asked := fixed
	asked.Kind, asked.BoundAt, asked.Nonce, asked.Peer = nat.MappingPCP, user.CreatedAt.Add(-time.Nanosecond), [12]byte{0xab, 11: 1}, netip.MustParseAddrPort("203.0.113.9:53")
	for want, m := range map[string]nat.Mapping{
		`{"kind":"pcp","inside":"100.64.0.7","inside_port":22,"created_at":"2026-03-01T12:00:00Z","expires_at":"2026-03-02T12:00:00Z","bound_at":"2026-03-01T11:59:59.999999999Z","nonce":"ab0000000000000000000001","peer":"203.0.113.9:53"}`: asked,
		`{"kind":"static","user_name":"alice","inside_port":22,"created_at":"2026-03-01T12:00:00Z","expires_at":"2026-03-02T12:00:00Z"}`:                                                                                                       user,
		`{"kind":"static","inside":"100.64.0.7","inside_port":22,"created_at":"2026-03-01T12:00:00Z","expires_at":"2026-03-02T12:00:00Z"}`:                                                                                                     fixed,
		`{"kind":"static","user_name":{"base64":"YWz/aWNl"},"inside_port":22,"created_at":"2026-03-01T12:00:00Z","expires_at":"2026-03-02T12:00:00Z","hold_until":"2026-03-02T12:00:00Z"}`:                                                     raw,
	} {
		text, err := FormatMapping(&m)
		if err != nil || string(text) != want {
			t.Errorf("%v is stored as %s, %v; want %s", m.Owner, text, err, want)
		}
		if again, err := ParseMapping("default", FormatEndpoint(m.Outside), string(text)); err != nil || again != m {
			t.Errorf("%s is read as %+v, %v", text, again, err)
		}
	}
}

func TestUnreadableMappings(t *testing.T) {
	field, text := "tcp/198.51.100.1:60022", `{"kind":"static","user_name":"alice","inside_port":22}`
	if _, err := ParseMapping("default", field, text); err != nil {
		t.Fatal(err)
	}
	for _, tt := range [][2]string{
		{"", text}, {"tcp", text}, {"gre/198.51.100.1:60022", text}, {"tcp/198.51.100.1", text}, {"tcp/[2001:db8::1]:60022", text}, {"tcp/198.51.100.1:0", text},
		{"tcp/198.51.100.1:060022", text},
		{field, ""}, {field, "[]"}, {field, `{"user_name":"alice","inside_port":22}`}, {field, `{"kind":"pinned","user_name":"alice","inside_port":22}`},
		{field, `{"kind":"static","inside_port":22}`}, {field, `{"kind":"static","user_name":"alice","inside":"100.64.0.7","inside_port":22}`},
		{field, `{"kind":"static","inside":"2001:db8::1","inside_port":22}`}, {field, `{"kind":"static","user_name":"alice"}`},
		{field, `{"kind":"pcp","user_name":"alice","inside_port":22,"bound_at":"2026-03-01T12:00:00Z"}`}, {field, `{"kind":"pcp","inside":"100.64.0.7","inside_port":22}`},
		{field, `{"kind":"static","inside":"100.64.0.7","inside_port":22,"bound_at":"2026-03-01T12:00:00Z"}`}, {field, `{"kind":"static","inside":"100.64.0.7","inside_port":22,"nonce":"ab0000000000000000000001"}`},
		{field, `{"kind":"pcp","inside":"100.64.0.7","inside_port":22,"bound_at":"2026-03-01T12:00:00Z","nonce":"ab"}`},
	} {
		if m, err := ParseMapping("default", tt[0], tt[1]); err == nil {
			t.Errorf("%s, %s is taken for %+v", tt[0], tt[1], m)
		}
	}
}

// FuzzParseMapping: whatever can be read is written and read as the same.
func FuzzParseMapping(f *testing.F) {
	m := mappingExample()
	text, err := FormatMapping(&m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(FormatEndpoint(m.Outside), string(text))
	f.Add("udp/198.51.100.1:1", `{"kind":"static","inside":"100.64.0.7","inside_port":53,"hold_until":"2026-03-02T12:00:00+01:00"}`)
	f.Add("udp/198.51.100.1:1", `{"kind":"pcp","inside":"100.64.0.7","inside_port":53,"bound_at":"2026-03-02T12:00:00+01:00","nonce":"ab0000000000000000000001"}`)
	f.Fuzz(func(t *testing.T, field, text string) {
		m, err := ParseMapping("default", field, text)
		if err != nil {
			return
		}
		again, err := FormatMapping(&m)
		if err != nil {
			return // a time that JSON has no form for
		}
		second, err := ParseMapping("default", FormatEndpoint(m.Outside), string(again))
		if err != nil || second.Owner != m.Owner || second.Outside != m.Outside || second.InsidePort != m.InsidePort || !second.HoldUntil.Equal(m.HoldUntil) || !second.ExpiresAt.Equal(m.ExpiresAt) || !second.BoundAt.Equal(m.BoundAt) || second.Nonce != m.Nonce || second.Peer != m.Peer {
			t.Errorf("%s %s became %s, read as %+v, %v", field, text, again, second, err)
		}
	})
}
