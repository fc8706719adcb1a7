package acctload

import (
	"fmt"
	"net/netip"
	"testing"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
)

var secret = []byte("testing123")

// TestRequestsSayWhatTheyShould parses requests with layeh.com/radius.
func TestRequestsSayWhatTheyShould(t *testing.T) {
	o := &Options{
		Secret: secret, NASAddress: netip.MustParseAddr("192.0.2.1"),
		Attributes: []Attribute{{Type: 87, Value: []byte("port 7")}},
	}
	ev := event{session: 0xabc, number: 4_000_000_123, inside: 0x64400001, at: 1_700_000_000, lasted: 60, octets: 9}
	for _, kind := range []Kind{KindStart, KindInterim, KindStop, KindAccountingOn} {
		tmpl := newTemplate(o, "bng", kind)
		ev.kind = kind
		buf := make([]byte, 0, len(tmpl.octets))
		tmpl.fill(buf, 1, &event{kind: kind, session: 1<<64 - 1, number: 1<<32 - 1})
		octets := tmpl.fill(buf, 7, &ev)
		if !radius.IsAuthenticRequest(octets, secret) {
			t.Errorf("%v: Request Authenticator is wrong", kind)
		}
		p, err := radius.Parse(octets, secret)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintln(p.Identifier, rfc2866.AcctStatusType_Get(p), rfc2866.AcctSessionID_GetString(p),
			rfc2865.NASIdentifier_GetString(p), rfc2865.NASIPAddress_Get(p), rfc2869.EventTimestamp_Get(p).Unix(),
			rfc2869.NASPortID_GetString(p))
		if want := fmt.Sprintln(7, rfc2866.AcctStatusType(kind), "0000000000000abc", "bng", "192.0.2.1", 1_700_000_000, "port 7"); got != want {
			t.Errorf("%v: %s, want %s", kind, got, want)
		}
		if kind == KindAccountingOn {
			continue
		}
		got = fmt.Sprintln(rfc2865.UserName_GetString(p), rfc2865.CallingStationID_GetString(p), rfc2865.FramedIPAddress_Get(p))
		if want := "sub4000000123 02-00-ee-6b-28-7b 100.64.0.1\n"; got != want {
			t.Errorf("%v: %s, want %s", kind, got, want)
		}
		if kind != KindStart && (rfc2866.AcctSessionTime_Get(p) != 60 || rfc2866.AcctOutputOctets_Get(p) != 9) {
			t.Errorf("%v: %v", kind, p.Attributes)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	o := &Options{Secret: secret}
	tmpl := newTemplate(o, "bng", KindInterim)
	buf := make([]byte, 0, len(tmpl.octets))
	ev := event{kind: KindInterim}
	b.ReportAllocs()
	for b.Loop() {
		ev.session++
		tmpl.fill(buf, byte(ev.session), &ev)
	}
}
