package radiusacct_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// eventOf sends one request and returns the event that was recorded for it.
func eventOf(t *testing.T, attributes ...[]byte) subscriber.Event {
	t.Helper()
	l := start(t)
	newNAS(t, "127.0.0.2", l.addr).ask(packet(radius.CodeAccountingRequest, 1, secret, attributes...), secret)
	got := l.recorder.recorded()
	if len(got) != 1 {
		t.Fatalf("%d events, want 1", len(got))
	}
	return got[0]
}

func status(s rfc2866.AcctStatusType) []byte {
	return number(rfc2866.AcctStatusType_Type, uint32(s))
}

func session(id string) []byte { return attribute(rfc2866.AcctSessionID_Type, []byte(id)) }

func TestRestartWithoutSession_ACCT21(t *testing.T) {
	nas := attribute(rfc2865.NASIdentifier_Type, []byte("accel"))
	for code, want := range map[rfc2866.AcctStatusType]subscriber.EventKind{
		rfc2866.AcctStatusType_Value_AccountingOn:  subscriber.EventAccountingOn,
		rfc2866.AcctStatusType_Value_AccountingOff: subscriber.EventAccountingOff,
	} {
		ev := eventOf(t, status(code), nas)
		if ev.Kind != want || ev.NAS != "accel" || ev.AcctSessionID != "" {
			t.Errorf("%v became %+v", code, ev)
		}
	}
}

func TestNASIdentity_ACCT22(t *testing.T) {
	identifier := attribute(rfc2865.NASIdentifier_Type, []byte("bng"))
	v4 := attribute(rfc2865.NASIPAddress_Type, []byte{192, 0, 2, 1})
	v6 := attribute(95, netip.MustParseAddr("2001:db8::1").AsSlice())
	linkLocal := attribute(95, netip.MustParseAddr("fe80::1").AsSlice())
	cases := []struct {
		name       string
		attributes [][]byte
		nas        string
		address    string
	}{
		{"nothing: source", nil, "127.0.0.2", ""},
		{"identifier first", [][]byte{v4, identifier, v6}, "bng", "192.0.2.1"},
		{"address next", [][]byte{v6, v4}, "192.0.2.1", "192.0.2.1"},
		{"IPv6", [][]byte{v6}, "2001:db8::1", "2001:db8::1"},
		{"link-local is no name", [][]byte{linkLocal}, "127.0.0.2", ""},
		{"0.0.0.0 is no name", [][]byte{attribute(4, make([]byte, 4)), v6}, "2001:db8::1", "2001:db8::1"},
		{"empty identifier", [][]byte{attribute(32, nil), v4}, "192.0.2.1", "192.0.2.1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ev := eventOf(t, append(c.attributes, status(rfc2866.AcctStatusType_Value_Stop), session("s"))...)
			var address netip.Addr
			if c.address != "" {
				address = netip.MustParseAddr(c.address)
			}
			if ev.NAS != c.nas || ev.NASAddress != address {
				t.Errorf("NAS %q at %v, want %q at %v", ev.NAS, ev.NASAddress, c.nas, address)
			}
		})
	}
}

func TestBinarySafe_ACCT23(t *testing.T) {
	for _, text := range []string{
		"nul\x00inside", "\xff\xfe not UTF-8", `quote " and ]`, "two\r\nlines", "{tag}:*?[", strings.Repeat("\x01", 253),
	} {
		ev := eventOf(t, status(rfc2866.AcctStatusType_Value_Start), session(text),
			attribute(rfc2865.UserName_Type, []byte(text)),
			attribute(rfc2865.CallingStationID_Type, []byte(text)),
			attribute(rfc2865.NASIdentifier_Type, []byte(text)),
			attribute(rfc2865.Class_Type, []byte(text)))
		want := subscriber.SessionID{Client: "a", NAS: text, AcctSessionID: text}
		if ev.SessionID != want || ev.UserName != text || ev.CallingStationID != text {
			t.Errorf("%q became %+v", text, ev)
		}
	}
}

func TestNoAddress_ACCT24(t *testing.T) {
	for name, framed := range map[string][]byte{
		"absent":         nil,
		"zero":           attribute(rfc2865.FramedIPAddress_Type, []byte{0, 0, 0, 0}),
		"NAS selects":    attribute(rfc2865.FramedIPAddress_Type, []byte{255, 255, 255, 254}),
		"user negotiate": attribute(rfc2865.FramedIPAddress_Type, []byte{255, 255, 255, 255}),
	} {
		ev := eventOf(t, status(rfc2866.AcctStatusType_Value_Start), session("s"), framed)
		if ev.Inside.IsValid() {
			t.Errorf("%s: inside address is %v, want none", name, ev.Inside)
		}
	}
}

func TestPublicAddressPassedOn_ACCT25(t *testing.T) {
	ev := eventOf(t, status(rfc2866.AcctStatusType_Value_Start), session("s"),
		attribute(rfc2865.FramedIPAddress_Type, []byte{203, 0, 113, 5}))
	if ev.Inside != netip.MustParseAddr("203.0.113.5") {
		t.Errorf("inside address is %v", ev.Inside)
	}
}

func TestInterimAndStopFields(t *testing.T) {
	stamp := time.Now().Add(-time.Minute).Truncate(time.Second)
	ev := eventOf(t, status(rfc2866.AcctStatusType_Value_InterimUpdate), session("s"),
		number(rfc2869.EventTimestamp_Type, uint32(stamp.Unix())),
		number(rfc2866.AcctSessionTime_Type, 3600),
		number(rfc2866.AcctInputOctets_Type, 5), number(rfc2869.AcctInputGigawords_Type, 2),
		number(rfc2866.AcctOutputOctets_Type, 1<<32-1),
		number(rfc2866.AcctTerminateCause_Type, 1))
	if !ev.At.Equal(stamp) || ev.SessionTime != time.Hour {
		t.Errorf("at %v for %v", ev.At, ev.SessionTime)
	}
	if ev.InputOctets != 2<<32+5 || ev.OutputOctets != 1<<32-1 || ev.TerminateCause != 1 {
		t.Errorf("event is %+v", ev)
	}
}

func TestImplausibleClock_SES13(t *testing.T) {
	for _, stamp := range []uint32{0, uint32(time.Now().Add(24 * time.Hour).Unix())} {
		ev := eventOf(t, status(rfc2866.AcctStatusType_Value_Start), session("s"),
			number(rfc2869.EventTimestamp_Type, stamp), number(rfc2866.AcctDelayTime_Type, 30))
		if off := time.Since(ev.At) - 30*time.Second; off.Abs() > 2*time.Second {
			t.Errorf("stamp %d: event at %v", stamp, ev.At)
		}
	}
}
