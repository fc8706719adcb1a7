package radiusacct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// eventOf sends one request and returns its recorded event.
func eventOf(t *testing.T, attributes ...[]byte) subscriber.Event {
	t.Helper()
	return eventBy(t, func(*radiusacct.Client) {}, attributes...)
}

// eventBy is eventOf with a change to the client's configuration.
func eventBy(t *testing.T, change func(*radiusacct.Client), attributes ...[]byte) subscriber.Event {
	t.Helper()
	l := start(t, func(o *radiusacct.Options) { change(&o.Clients[0]) })
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
		identifier string // nas_identity: identifier
		byAddress  string // nas_identity: address
		both       string // nas_identity: both
		address    string
	}{
		{"nothing: source", nil, "127.0.0.2", "127.0.0.2", "@127.0.0.2", ""},
		{"all", [][]byte{v4, identifier, v6}, "bng", "192.0.2.1", "bng@192.0.2.1", "192.0.2.1"},
		{"identifier alone", [][]byte{identifier}, "bng", "127.0.0.2", "bng@", ""},
		{"addresses alone", [][]byte{v6, v4}, "192.0.2.1", "192.0.2.1", "@192.0.2.1", "192.0.2.1"},
		{"IPv6", [][]byte{v6}, "2001:db8::1", "2001:db8::1", "@2001:db8::1", "2001:db8::1"},
		{"IPv6 beside an identifier", [][]byte{v6, identifier}, "bng", "2001:db8::1", "bng@2001:db8::1", "2001:db8::1"},
		{"link-local is no name", [][]byte{linkLocal}, "127.0.0.2", "127.0.0.2", "@127.0.0.2", ""},
		{"0.0.0.0 is no name", [][]byte{attribute(4, make([]byte, 4)), v6}, "2001:db8::1", "2001:db8::1", "@2001:db8::1", "2001:db8::1"},
		{"empty identifier", [][]byte{attribute(32, nil), v4}, "192.0.2.1", "192.0.2.1", "@192.0.2.1", "192.0.2.1"},
		{"identifier like both", [][]byte{attribute(32, []byte("bng@192.0.2.1"))}, "bng@192.0.2.1", "127.0.0.2", "bng@192.0.2.1@", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var address netip.Addr
			if c.address != "" {
				address = netip.MustParseAddr(c.address)
			}
			attributes := append(c.attributes, status(rfc2866.AcctStatusType_Value_Stop), session("s"))
			for identity, nas := range map[wire.NASIdentity]string{
				wire.NASIdentifier: c.identifier, wire.NASAddress: c.byAddress, wire.NASBoth: c.both,
			} {
				ev := eventBy(t, func(c *radiusacct.Client) { c.NASIdentity = identity }, attributes...)
				if ev.NAS != nas || ev.NASAddress != address {
					t.Errorf("identity %d: NAS %q at %v, want %q at %v", identity, ev.NAS, ev.NASAddress, nas, address)
				}
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
		if ev.SessionID != want || ev.UserName != text || ev.CallingStationID != text || ev.Class != text {
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
		number(rfc2866.AcctDelayTime_Type, 7),
		number(rfc2866.AcctSessionTime_Type, 3600),
		number(rfc2866.AcctInputOctets_Type, 5), number(rfc2869.AcctInputGigawords_Type, 2),
		number(rfc2866.AcctOutputOctets_Type, 1<<32-1),
		number(rfc2866.AcctTerminateCause_Type, 1))
	if ev.SessionTime != time.Hour || !ev.Stamp.Equal(stamp) || ev.Delay != 7*time.Second || time.Since(ev.Arrival) > time.Minute {
		t.Errorf("for %v, stamp %v, delay %v, arrival %v", ev.SessionTime, ev.Stamp, ev.Delay, ev.Arrival)
	}
	if ev.InputOctets != 2<<32+5 || ev.OutputOctets != 1<<32-1 || ev.TerminateCause != 1 {
		t.Errorf("event is %+v", ev)
	}
}

func TestImplausibleClock_SES13(t *testing.T) {
	for _, stamp := range []uint32{0, uint32(time.Now().Add(24 * time.Hour).Unix())} {
		ev := eventOf(t, status(rfc2866.AcctStatusType_Value_Start), session("s"),
			number(rfc2869.EventTimestamp_Type, stamp), number(rfc2866.AcctDelayTime_Type, 30))
		new(subscriber.Clock).Place(&ev)
		if off := time.Since(ev.At) - 30*time.Second; off.Abs() > 2*time.Second {
			t.Errorf("stamp %d: event at %v", stamp, ev.At)
		}
	}
}

// eventsOf sends one request and returns its recorded events.
func eventsOf(t *testing.T, attributes ...[]byte) []subscriber.Event {
	t.Helper()
	l := start(t)
	attributes = append(attributes, status(rfc2866.AcctStatusType_Value_Start), session("s"))
	newNAS(t, "127.0.0.2", l.addr).ask(packet(radius.CodeAccountingRequest, 1, secret, attributes...), secret)
	return l.recorder.recorded()
}

func framed(addr string) []byte {
	return attribute(rfc2865.FramedIPAddress_Type, netip.MustParseAddr(addr).AsSlice())
}

func TestSeveralAddresses_ACCT28(t *testing.T) {
	cases := []struct {
		name   string
		framed []string
		want   []string
	}{
		{"two", []string{"100.64.0.8", "100.64.0.7"}, []string{"100.64.0.8", "100.64.0.7"}},
		{"the same twice", []string{"100.64.0.7", "100.64.0.7"}, []string{"100.64.0.7"}},
		{"one is none", []string{"0.0.0.0", "100.64.0.7", "255.255.255.254"}, []string{"100.64.0.7"}},
		{"none", []string{"255.255.255.255", "0.0.0.0"}, []string{"invalid IP"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var attributes [][]byte
			for _, a := range c.framed {
				attributes = append(attributes, framed(a))
			}
			events := eventsOf(t, attributes...)
			if len(events) != len(c.want) {
				t.Fatalf("%d events, want %d", len(events), len(c.want))
			}
			for i, ev := range events {
				if ev.Inside.String() != c.want[i] || ev.SessionID != events[0].SessionID {
					t.Errorf("event %d is %+v", i, ev)
				}
				if len(events) > 1 && len(ev.Addresses) != len(c.want) || len(events) == 1 && ev.Addresses != nil {
					t.Errorf("event %d has addresses %v", i, ev.Addresses)
				}
			}
		})
	}
}

// TestSeveralAddressesAreOneRequest_I2: the reply waits for the events of all addresses.
func TestSeveralAddressesAreOneRequest_I2(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) { o.Recorder = secondFails{} })
	n := newNAS(t, "127.0.0.2", l.addr)
	n.send(startRequest(1, "s", framed("100.64.0.8")))
	l.observer.wait(t, "a/start/store_failed", 1)
	n.silent()
}

// secondFails refuses every second event.
type secondFails struct{}

func (secondFails) Record(_ context.Context, events []subscriber.Event) []error {
	errs := make([]error, len(events))
	for i := range errs {
		if i%2 == 1 {
			errs[i] = errors.New("no room")
		}
	}
	return errs
}

func TestTooManyAddresses_ACCT28(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	var many [][]byte
	for i := range 17 {
		many = append(many, framed(fmt.Sprintf("100.64.1.%d", i)))
	}
	n.send(startRequest(1, "s", many...))
	n.silent()
	l.observer.wait(t, "a/unread/malformed", 1)
	n.ask(startRequest(2, "s", many[:15]...), secret) // and the one of startRequest
	if got := len(l.recorder.recorded()); got != 16 {
		t.Errorf("%d events, want 16", got)
	}
}

func TestIPv6Attributes_ACCT29(t *testing.T) {
	prefix := func(kind radius.Type, bits byte, octets ...byte) []byte {
		return attribute(kind, append([]byte{0, bits}, octets...))
	}
	events := eventsOf(t,
		prefix(97, 48, 0x20, 1, 0xd, 0xb8, 0, 1), // 10 octets of attribute, 8 of value
		prefix(97, 64, 0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 1),
		prefix(97, 64, 0x20, 1, 0xd, 0xb8, 0, 2), // the same
		prefix(97, 0),
		prefix(123, 56, 0x20, 1, 0xd, 0xb8, 0, 3, 0xab),
		prefix(123, 128, netip.MustParseAddr("2001:db8::9").AsSlice()...),
		attribute(168, netip.MustParseAddr("2001:db8::1").AsSlice()),
		attribute(168, netip.MustParseAddr("2001:db8::2").AsSlice()),
		attribute(95, netip.MustParseAddr("2001:db8::ff").AsSlice()),
	)
	if len(events) != 1 {
		t.Fatalf("%d events, want 1", len(events))
	}
	ev := events[0]
	got := fmt.Sprint(ev.FramedIPv6Prefixes, ev.DelegatedPrefixes, ev.FramedIPv6Addresses, ev.NASAddress)
	want := "[2001:db8:1::/48 2001:db8:2::/64] [2001:db8:3:ab00::/56 2001:db8::9/128] [2001:db8::1 2001:db8::2] 2001:db8::ff"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if ev.Inside.IsValid() {
		t.Errorf("an IPv6 session got the inside address %v", ev.Inside)
	}
}

func TestManyPrefixesAreBounded_ACCT29(t *testing.T) {
	var many [][]byte
	for i := range 200 {
		many = append(many, attribute(97, []byte{0, 32, 0x20, 1, 0xd, byte(i)}))
	}
	if got := len(eventsOf(t, many...)[0].FramedIPv6Prefixes); got != 16 {
		t.Errorf("%d prefixes kept, want 16", got)
	}
}

func TestMultilink_SES20(t *testing.T) {
	ev := eventsOf(t, attribute(rfc2866.AcctMultiSessionID_Type, []byte("bundle\x00")), number(rfc2866.AcctLinkCount_Type, 2))[0]
	if ev.MultiSessionID != "bundle\x00" || ev.LinkCount != 2 {
		t.Errorf("event is %+v", ev)
	}
}

func TestServices_SES21(t *testing.T) {
	vsa := func(vendor uint32, inner ...[]byte) []byte {
		return attribute(26, append(radius.NewInteger(vendor), bytes.Join(inner, nil)...))
	}
	parent := attribute(1, []byte("parent-session-id=0000A5C"))
	cases := []struct {
		name    string
		vsa     []byte
		service bool
		parent  string // parent of the session "0A5C:7" in the multisession "0A5D"
	}{
		{"none", nil, false, ""},
		{"Juniper", vsa(4874, attribute(83, []byte("video"))), true, "0A5C"},
		{"Juniper, nameless", vsa(4874, attribute(83, nil)), false, ""},
		{"Juniper, other", vsa(4874, attribute(1, []byte("vr"))), false, ""},
		{"Cisco", vsa(9, parent), true, "0000A5C"},
		{"Cisco, second in its attribute", vsa(9, attribute(1, []byte("connect-progress=Call Up")), parent), true, "0000A5C"},
		{"Cisco, other", vsa(9, attribute(1, []byte("parent-session=1"))), false, ""},
		{"Cisco, not a pair", vsa(9, attribute(2, []byte("parent-session-id=1"))), false, ""},
		{"Cisco, parent by itself", vsa(9, attribute(52, []byte("0000A5C"))), true, "0000A5C"},
		{"Cisco, service connection", vsa(9, attribute(251, []byte("Nisp-name.com"))), true, ""},
		{"Cisco, service connection and parent", vsa(9, attribute(251, []byte("Nvideo")), parent), true, "0000A5C"},
		{"Cisco, other service info", vsa(9, attribute(251, []byte("Ualice")), attribute(251, []byte("TP")), attribute(251, []byte("N"))), false, ""},
		{"Cisco, account info", vsa(9, attribute(250, []byte("Nvideo"))), false, ""},
		{"Nokia", []byte("\x1a\x12\x00\x00\x19\x7f\x97\x0crate-limit"), true, "0A5D"},
		{"Nokia, nameless", vsa(6527, attribute(151, nil)), false, ""},
		{"Nokia, other", vsa(6527, attribute(11, []byte("sub1")), attribute(152, []byte("rate-limit"))), false, ""},
		{"Huawei, in accounting of users too", vsa(2011, attribute(95, []byte("edsg")), attribute(185, []byte("Nedsg"))), false, ""},
		{"another vendor", vsa(10, parent, attribute(83, []byte("x"))), false, ""},
		{"cut off", vsa(9, parent[:10]), false, ""},
		{"length 0", vsa(9, []byte{1, 0}, parent), false, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ev := eventOf(t, status(rfc2866.AcctStatusType_Value_Start), session("0A5C:7"),
				attribute(rfc2866.AcctMultiSessionID_Type, []byte("0A5D")), c.vsa)
			if ev.Service != c.service || ev.ParentSessionID != c.parent {
				t.Errorf("service %v of %q, want %v of %q", ev.Service, ev.ParentSessionID, c.service, c.parent)
			}
		})
	}
}

// TestServicesByConfiguration_SES21: an attribute that marks no service by itself is a mark
// where the configuration says so, for that client and attribute alone.
func TestServicesByConfiguration_SES21(t *testing.T) {
	marked := func(c *radiusacct.Client) {
		c.ServiceMarks = []wire.VendorAttribute{{Vendor: 2011, Type: 185}, {Vendor: 2352, Type: 190}}
		c.CountServices = true
	}
	vsa := func(vendor uint32, kind radius.Type, value string) []byte {
		return attribute(26, append(radius.NewInteger(vendor), attribute(kind, []byte(value))...))
	}
	for _, c := range []struct {
		name    string
		vsa     []byte
		service bool
	}{
		{"Huawei", vsa(2011, 185, "Nedsg"), true},
		{"Ericsson", vsa(2352, 190, "gold"), true},
		{"another attribute", vsa(2011, 190, "gold"), false},
		{"another vendor", vsa(3902, 185, "x"), false},
		{"empty", vsa(2011, 185, ""), false},
	} {
		ev := eventBy(t, marked, status(rfc2866.AcctStatusType_Value_Start), session("s"), c.vsa)
		if ev.Service != c.service || ev.ParentSessionID != "" || !ev.CountServices {
			t.Errorf("%s: service %v of %q, counted %v", c.name, ev.Service, ev.ParentSessionID, ev.CountServices)
		}
	}
}

// TestClass: every Class is kept, in order and octet for octet (RFC 2865 section 5.25).
func TestClass(t *testing.T) {
	long := strings.Repeat("\xff", 253)
	class := func(value string) []byte { return attribute(rfc2865.Class_Type, []byte(value)) }
	for _, c := range []struct {
		name    string
		classes []string
		first   string
		more    []string
	}{
		{"none", nil, "", nil},
		{"one", []string{"gold\x00"}, "gold\x00", nil},
		{"several", []string{"b", long, "a", "b"}, "b", []string{long, "a", "b"}},
		{"empty ones", []string{"", "a", "", "b"}, "a", []string{"b"}},
		{"too many", strings.Split(strings.Repeat("x ", 19)+"x", " "), "x", strings.Split(strings.Repeat("x ", 14)+"x", " ")},
	} {
		var attributes [][]byte
		for _, value := range c.classes {
			attributes = append(attributes, class(value))
		}
		ev := eventsOf(t, attributes...)[0]
		if ev.Class != c.first || !slices.Equal(ev.MoreClasses, c.more) {
			t.Errorf("%s: %q and %q", c.name, ev.Class, ev.MoreClasses)
		}
	}
}

// TestRealm_SES02: a NAS heard through two proxies of one realm is one NAS, and the event
// names the proxy through which it came.
func TestRealm_SES02(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) {
		for i := range o.Clients {
			o.Clients[i].Realm, o.Clients[i].Restarts = "core", subscriber.RestartsConfirmed
		}
	})
	newNAS(t, "127.0.0.2", l.addr).ask(startRequest(1, "s"), secret)
	newNAS(t, "127.0.0.9", l.addr).ask(resign(startRequest(1, "s"), "secret-of-b"), "secret-of-b")
	got := l.recorder.recorded()
	if len(got) != 2 || got[0].SessionID != got[1].SessionID || got[0].Client != "core" {
		t.Fatalf("recorded %+v", got)
	}
	if got[0].Via != "a" || got[1].Via != "b" || got[0].Restarts != subscriber.RestartsConfirmed {
		t.Errorf("came through %q and %q, restarts %d", got[0].Via, got[1].Via, got[0].Restarts)
	}
	if l.observer.count("a/start/ok") != 1 || l.observer.count("b/start/ok") != 1 {
		t.Error("not counted by client")
	}
}

// TestRealmKeepsOrder: events of one session are in one queue, through whichever proxy they
// come.
func TestRealmKeepsOrder(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) {
		o.Workers = 8
		for i := range o.Clients {
			o.Clients[i].Realm = "core"
		}
	})
	a, b := newNAS(t, "127.0.0.2", l.addr), newNAS(t, "127.0.0.9", l.addr)
	resume := l.recorder.stall()
	defer resume()
	a.send(startRequest(1, "s"))
	l.recorder.entered(t) // it is being recorded, so the following ones wait in its queue
	b.send(resign(accounting(1, rfc2866.AcctStatusType_Value_Stop, "s"), "secret-of-b"))
	a.send(startRequest(2, "s", number(rfc2866.AcctDelayTime_Type, 1)))
	a.silent()
	resume()
	for range 2 {
		a.receive()
	}
	b.receive()
	for i, ev := range l.recorder.recorded() {
		if want := []string{"a", "b", "a"}[i]; ev.Via != want {
			t.Errorf("event %d came through %s, want %s", i, ev.Via, want)
		}
	}
}

// TestNoRecord_ACCT10: an answered request without a record is counted as RFC 4671 says,
// also if only the Recorder finds that there is nothing to record.
func TestNoRecord_ACCT10(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) { o.Recorder = pickyRecorder{} })
	n := newNAS(t, "127.0.0.2", l.addr)
	n.ask(startRequest(1, "known"), secret)
	n.ask(startRequest(2, "new"), secret)
	n.ask(startRequest(3, "half known", framed("100.64.0.8")), secret)
	if ok, none := l.observer.count("a/start/ok"), l.observer.count("a/start/no_record"); ok != 2 || none != 1 {
		t.Errorf("ok counted %d times, no_record %d times, want 2 and 1", ok, none)
	}
}

// pickyRecorder finds nothing to record in known sessions, and in the first address of
// half-known ones.
type pickyRecorder struct{}

func (pickyRecorder) Record(_ context.Context, events []subscriber.Event) []error {
	errs := make([]error, len(events))
	for i, ev := range events {
		if ev.AcctSessionID == "known" || ev.AcctSessionID == "half known" && ev.Inside == ev.Addresses[0] {
			errs[i] = subscriber.ErrNoRecord
		}
	}
	return errs
}
