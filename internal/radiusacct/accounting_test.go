package radiusacct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/subscriber"
)

func TestStartAnswered_ACCT01(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	before := time.Now()
	reply := n.ask(startRequest(7, "s1"), secret)
	if len(reply) != 20 || reply[0] != 5 || reply[1] != 7 {
		t.Errorf("reply is %x, want a bare Accounting-Response with identifier 7", reply)
	}
	got := l.recorder.recorded()
	if len(got) != 1 {
		t.Fatalf("%d events, want 1", len(got))
	}
	arrival := got[0].Arrival
	if arrival.Before(before) || arrival.After(time.Now()) {
		t.Errorf("arrived at %v, sent at %v", arrival, before)
	}
	want := subscriber.Event{
		Kind:        subscriber.EventStart,
		SessionID:   subscriber.SessionID{Client: "a", NAS: "bng1", AcctSessionID: "s1"},
		Sender:      subscriber.Sender{Via: "a", Restarts: subscriber.RestartsBelieved},
		UserName:    "alice",
		Inside:      netip.MustParseAddr("100.64.0.7"),
		Arrival:     arrival,
		Digest:      got[0].Digest, // see TestDigest
		Delay:       -1,
		SessionTime: -1,
	}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("event is %+v, want %+v", got[0], want)
	}
	if n := l.observer.count("a/start/ok"); n != 1 {
		t.Errorf("ok counted %d times", n)
	}
}

// TestSilent_ACCT sends the requests that must not be answered, and checks the counter of
// each.
func TestSilent_ACCT(t *testing.T) {
	zeroed := func(b []byte) []byte { clear(b[4:20]); return b }
	start := func(more ...[]byte) []byte { return startRequest(1, "s", more...) }
	typed := func(kind radius.Type, sizes ...int) (requests [][]byte) {
		for _, size := range sizes {
			requests = append(requests, start(attribute(kind, make([]byte, size))))
		}
		return requests
	}
	cases := []struct {
		name     string
		result   string
		requests [][]byte
	}{
		{"ACCT03/wrong_secret", radiusacct.ResultBadAuthenticator, [][]byte{resign(start(), "wrong")}},
		{"ACCT03/zero_authenticator", radiusacct.ResultBadAuthenticator, [][]byte{zeroed(start())}},
		{"ACCT05/short", radiusacct.ResultMalformed, [][]byte{{}, {4}, start()[:19]}},
		{"ACCT05/length_below_header", radiusacct.ResultMalformed, [][]byte{withLength(start(), 19), withLength(start(), 0)}},
		{"ACCT05/length_beyond_datagram", radiusacct.ResultMalformed, [][]byte{withLength(start(), len(start())+1)}},
		{"ACCT06/too_long", radiusacct.ResultMalformed, [][]byte{filled(4097)}},
		{"ACCT07/attribute_length_0", radiusacct.ResultMalformed, [][]byte{start([]byte{25, 0})}},
		{"ACCT07/attribute_length_1", radiusacct.ResultMalformed, [][]byte{start([]byte{25, 1, 0})}},
		{"ACCT07/overrun", radiusacct.ResultMalformed, [][]byte{start([]byte{25, 5, 1, 2})}},
		{"ACCT07/stray_octet", radiusacct.ResultMalformed, [][]byte{start([]byte{25})}},
		{"ACCT08/nas_ip", radiusacct.ResultMalformed, typed(4, 0, 3, 5, 16)},
		{"ACCT08/framed_ip", radiusacct.ResultMalformed, typed(8, 0, 3, 5)},
		{"ACCT08/delay", radiusacct.ResultMalformed, typed(41, 0, 3, 5, 8)},
		{"ACCT08/session_time", radiusacct.ResultMalformed, typed(46, 3, 5)},
		{"ACCT08/terminate_cause", radiusacct.ResultMalformed, typed(49, 3, 5)},
		{"ACCT08/event_timestamp", radiusacct.ResultMalformed, typed(55, 3, 8)},
		{"ACCT08/nas_ipv6", radiusacct.ResultMalformed, typed(95, 4, 15, 17)},
		{"ACCT08/framed_ipv6_address", radiusacct.ResultMalformed, typed(168, 4, 17)},
		{"ACCT08/framed_ipv6_prefix", radiusacct.ResultMalformed, typed(97, 0, 1, 19)},
		{"ACCT08/delegated_prefix", radiusacct.ResultMalformed, typed(123, 0, 1, 19)},
		{"ACCT08/prefix_length", radiusacct.ResultMalformed, [][]byte{start(attribute(97, []byte{0, 129})), start(attribute(123, []byte{0, 255, 1}))}},
		{"ACCT08/status_type", radiusacct.ResultMalformed, [][]byte{packet(4, 1, secret, attribute(40, []byte{1}), attribute(44, []byte("s")))}},
		{"ACCT09/codes", radiusacct.ResultUnknownType, codes(0, 1, 2, 3, 5, 11, 13, 40, 43, 255)},
		{"ACCT17/wrong", radiusacct.ResultBadAuthenticator, [][]byte{start(attribute(80, make([]byte, 16)))}},
		{"ACCT17/size", radiusacct.ResultMalformed, typed(80, 0, 15, 17)},
		{"ACCT17/repeated", radiusacct.ResultMalformed, [][]byte{withMessageAuth(start(), 2)}},
		{"ACCT18/no_message_authenticator", radiusacct.ResultBadAuthenticator, [][]byte{packet(12, 1, secret)}},
		{"ACCT18/bad_message_authenticator", radiusacct.ResultBadAuthenticator, [][]byte{statusServer(1, "wrong"), packet(12, 1, secret, attribute(80, make([]byte, 16)))}},
		{"ACCT20/no_status_type", radiusacct.ResultMalformed, [][]byte{packet(4, 1, secret, attribute(44, []byte("s")))}},
		{"ACCT20/no_session", radiusacct.ResultMalformed, [][]byte{
			packet(4, 1, secret, number(40, 1)), packet(4, 1, secret, number(40, 2)), packet(4, 1, secret, number(40, 3)),
			packet(4, 1, secret, number(40, 1), attribute(44, nil)),
		}},
		{"ACCT28/two_status_types_alike", radiusacct.ResultMalformed, [][]byte{start(number(40, 1))}},
		{"ACCT28/two_sessions_alike", radiusacct.ResultMalformed, [][]byte{start(attribute(44, []byte("s")))}},
		{"ACCT28/two_status_types", radiusacct.ResultMalformed, [][]byte{start(number(40, 2))}},
		{"ACCT28/two_sessions", radiusacct.ResultMalformed, [][]byte{start(attribute(44, []byte("t")))}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := startLab(t)
			n := newNAS(t, "127.0.0.2", l.addr)
			for _, request := range c.requests {
				n.send(request)
			}
			n.silent()
			l.observer.wait(t, c.result, len(c.requests))
			n.ask(startRequest(1, "after"), secret)
			if got := l.recorder.recorded(); len(got) != 1 || got[0].AcctSessionID != "after" {
				t.Errorf("recorded %+v, want only the valid request", got)
			}
		})
	}
}

// startLab is start, under a name that test tables do not shadow.
var startLab = start

func codes(codes ...radius.Code) (requests [][]byte) {
	for _, c := range codes {
		requests = append(requests, packet(c, 1, secret, number(40, 1), attribute(44, []byte("s"))))
	}
	return requests
}

func withLength(b []byte, n int) []byte {
	b[2], b[3] = byte(n>>8), byte(n)
	return resign(b, secret)
}

// filled returns a valid Start of exactly size octets.
func filled(size int) []byte {
	b := startRequest(1, "s")
	for size-len(b) > 257 {
		b = append(b, attribute(25, make([]byte, 253))...)
	}
	if rest := size - len(b); rest > 255 {
		b = append(b, attribute(25, make([]byte, 100))...)
	}
	b = append(b, attribute(25, make([]byte, size-len(b)-2))...)
	return withLength(b, size)
}

// withMessageAuth appends correct Message-Authenticators, each computed without the others.
func withMessageAuth(request []byte, n int) []byte {
	p, err := radius.Parse(request, []byte(secret))
	if err != nil {
		panic("radiusacct_test: " + err.Error())
	}
	for range n - 1 {
		p.Add(rfc2869.MessageAuthenticator_Type, make([]byte, 16))
	}
	b, err := acctclient.Encode(p, []byte(secret), true)
	if err != nil {
		panic("radiusacct_test: " + err.Error())
	}
	return b
}

func TestAnyFlippedBitIsNoticed_ACCT03(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	sound := startRequest(1, "s")
	for bit := 20 * 8; bit < len(sound)*8; bit++ {
		b := bytes.Clone(sound)
		b[bit/8] ^= 1 << (bit % 8)
		n.send(b)
		if bit%64 == 0 {
			n.silent() // keeps the socket's queue short
		}
	}
	n.silent()
	l.observer.wait(t, "a/unread/bad_authenticator", (len(sound)-20)*8)
	// The forgeries shared identifier and port with this one, and changed nothing.
	n.ask(sound, secret)
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
}

func TestForgeryDoesNotTouchCache_ACCT03(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	sound := startRequest(1, "s")
	first := n.ask(sound, secret)
	n.send(resign(startRequest(1, "other"), "wrong"))
	if again := n.ask(sound, secret); !bytes.Equal(first, again) {
		t.Error("a forgery displaced a cached reply")
	}
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
}

func TestClientBySourceAddress_ACCT04(t *testing.T) {
	var log bytes.Buffer
	l := start(t, func(o *radiusacct.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	t.Run("longest prefix", func(t *testing.T) {
		n := newNAS(t, "127.0.0.9", l.addr)
		n.ask(resign(startRequest(1, "s"), "secret-of-b"), "secret-of-b")
		if got := l.recorder.recorded(); got[0].Client != "b" {
			t.Errorf("client is %q, want b", got[0].Client)
		}
	})
	t.Run("secret of another client", func(t *testing.T) {
		n := newNAS(t, "127.0.0.2", l.addr)
		nasOfB := attribute(rfc2865.NASIPAddress_Type, []byte{127, 0, 0, 9})
		n.send(resign(startRequest(1, "s", nasOfB), "secret-of-b"))
		n.silent()
		l.observer.wait(t, "a/unread/bad_authenticator", 1)
	})
	t.Run("unknown source", func(t *testing.T) {
		stranger := newNAS(t, "127.0.1.1", l.addr)
		for range 50 {
			stranger.send(startRequest(1, "s"))
		}
		stranger.send(statusServer(1, secret))
		l.observer.wait(t, "/unread/unknown_client", 51)
		newNAS(t, "127.0.0.2", l.addr).ask(startRequest(2, "s2"), secret)
	})
	l.stop()
	if lines := strings.Count(log.String(), "unknown client"); lines != 1 {
		t.Errorf("%d log lines about strangers, want 1:\n%s", lines, log.String())
	}
}

func TestConfigurationRefused_ACCT04(t *testing.T) {
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	good := radiusacct.Client{Name: "x", Prefix: prefix, Secret: []byte("s")}
	cases := map[string]func(*radiusacct.Options){
		"empty secret": func(o *radiusacct.Options) { o.Clients = []radiusacct.Client{{Name: "x", Prefix: prefix}} },
		"no name":      func(o *radiusacct.Options) { o.Clients = []radiusacct.Client{{Prefix: prefix, Secret: []byte("s")}} },
		"no prefix":    func(o *radiusacct.Options) { o.Clients = []radiusacct.Client{{Name: "x", Secret: []byte("s")}} },
		"SAN twice": func(o *radiusacct.Options) {
			san := radsec.Certificate{SAN: "bng.example"}
			o.Clients = []radiusacct.Client{{Name: "x", Certificate: san}, {Name: "y", Certificate: san}}
		},
		"fingerprint twice": func(o *radiusacct.Options) {
			print := radsec.Certificate{Fingerprint: radsec.Fingerprint{1}}
			o.Clients = []radiusacct.Client{{Name: "x", Certificate: print}, {Name: "y", Certificate: print}}
		},
		"RadSec nowhere": func(o *radiusacct.Options) { o.RadSec = &radsec.Options{CertFile: "c", KeyFile: "k"} },
		"RadSec unnamed": func(o *radiusacct.Options) { o.RadSec = &radsec.Options{Listen: []string{"127.0.0.1:0"}} },
		"RadSec unfounded": func(o *radiusacct.Options) {
			o.RadSec = &radsec.Options{Listen: []string{"127.0.0.1:0"}, CertFile: "nowhere", KeyFile: "nowhere"}
		},
		"prefix twice":     func(o *radiusacct.Options) { o.Clients = []radiusacct.Client{good, good} },
		"no recorder":      func(o *radiusacct.Options) { o.Recorder = nil },
		"no listen":        func(o *radiusacct.Options) { o.Listen = nil },
		"bad listen":       func(o *radiusacct.Options) { o.Listen = []string{"127.0.0.1:0", "nonsense"} },
		"host name listen": func(o *radiusacct.Options) { o.Listen = []string{"localhost:0"} },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			o := radiusacct.Options{Listen: []string{"127.0.0.1:0"}, Clients: []radiusacct.Client{good}, Recorder: &recorder{}}
			spoil(&o)
			if _, err := radiusacct.New(o); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestPaddingIgnored_ACCT05(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	for i, padding := range []int{1, 4, 1000, 6000} {
		request := startRequest(byte(i), fmt.Sprint("s", i))
		n.send(append(bytes.Clone(request), make([]byte, padding)...))
		reply, _ := n.receive()
		if !acctclient.Verify(reply, request, []byte(secret)) {
			t.Errorf("%d octets of padding: bad reply", padding)
		}
	}
}

func TestLongestPacket_ACCT06(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	n.ask(filled(4095), secret)
	n.ask(filled(4096), secret)
}

func TestUnknownAttributesIgnored_ACCT08(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	for i, odd := range [][]byte{
		attribute(26, []byte{0, 0, 0}),                   // VSA without a vendor
		attribute(26, []byte{0, 0, 0, 9, 1, 0}),          // VSA of length 0 within
		attribute(26, []byte{0, 0, 0, 9, 1, 200, 1}),     // overrun within
		attribute(241, []byte{1}),                        // extended (RFC 6929)
		attribute(245, []byte{26, 0, 0, 0, 0}),           // long extended
		attribute(250, nil),                              // unassigned, empty
		attribute(2, []byte("forbidden")),                // ACCT-27: User-Password
		attribute(97, []byte{0, 48, 0x20, 1, 0xd, 0xb8}), // short prefix, ACCT-29
		attribute(97, []byte{0, 0}),
	} {
		n.ask(startRequest(byte(i), fmt.Sprint("s", i), odd), secret)
	}
}

func TestReplyOnlyAfterRecord_ACCT10(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	request := startRequest(1, "s")

	l.recorder.fail(errors.New("database is gone"))
	n.send(request)
	l.observer.wait(t, "a/start/store_failed", 1)
	n.silent()

	l.recorder.fail(nil)
	resume := l.recorder.stall()
	n.send(request)
	l.recorder.entered(t)
	n.silent()
	resume()
	if reply, _ := n.receive(); !acctclient.Verify(reply, request, []byte(secret)) {
		t.Error("bad reply after the database came back")
	}
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events recorded, want 1", got)
	}
	if got := l.observer.count(radiusacct.ResultNoRecord); got != 0 {
		t.Errorf("no_record is %d, want 0", got)
	}
}

func TestProxyStateEchoed_ACCT11(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	for i, count := range []int{0, 1, 5} {
		var states []byte
		more := [][]byte{attribute(rfc2865.Class_Type, []byte("class"))}
		for j := range count {
			value := bytes.Repeat([]byte{byte(j), 0, '"'}, 85)[:253]
			state := attribute(rfc2865.ProxyState_Type, value)
			states = append(states, state...)
			more = append(more, state, attribute(rfc2865.ReplyMessage_Type, []byte("between")))
		}
		request := startRequest(byte(i), fmt.Sprint("s", i), more...)
		reply := n.ask(request, secret)
		if !bytes.Equal(reply[20:], states) {
			t.Errorf("%d Proxy-State: reply carries %x, want %x", count, reply[20:], states)
		}
		if again := n.ask(request, secret); !bytes.Equal(again, reply) {
			t.Errorf("%d Proxy-State: cached reply differs", count)
		}
	}
}

func TestRetransmitAnsweredFromCache_ACCT12(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	request := startRequest(1, "s")
	first := n.ask(request, secret)
	for range 3 {
		if again := n.ask(request, secret); !bytes.Equal(first, again) {
			t.Error("cached reply differs")
		}
	}
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
	if got := l.observer.count("a/start/duplicate"); got != 3 {
		t.Errorf("%d duplicates counted, want 3", got)
	}
	t.Run("another port is another request", func(t *testing.T) {
		newNAS(t, "127.0.0.2", l.addr).ask(request, secret)
		if got := len(l.recorder.recorded()); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
	})
}

func TestDuplicateInProgressDropped_ACCT13(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	resume := l.recorder.stall()
	request := startRequest(1, "s")
	n.send(request)
	l.recorder.entered(t)
	n.send(request)
	n.send(request)
	l.observer.wait(t, "a/start/in_progress", 2)
	resume()
	if reply, _ := n.receive(); !acctclient.Verify(reply, request, []byte(secret)) {
		t.Error("bad reply")
	}
	n.silent()
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
}

func TestReusedIdentifier_ACCT14(t *testing.T) {
	t.Run("after the reply", func(t *testing.T) {
		l := start(t)
		n := newNAS(t, "127.0.0.2", l.addr)
		first := startRequest(1, "s")
		n.ask(first, secret)
		n.ask(accounting(1, rfc2866.AcctStatusType_Value_Stop, "s"), secret)
		n.ask(first, secret) // removed from the cache, so processed again
		if got := len(l.recorder.recorded()); got != 3 {
			t.Errorf("%d events, want 3", got)
		}
	})
	t.Run("in progress", func(t *testing.T) {
		l := start(t)
		n := newNAS(t, "127.0.0.2", l.addr)
		resume := l.recorder.stall()
		n.send(startRequest(1, "s"))
		l.recorder.entered(t)
		second := accounting(1, rfc2866.AcctStatusType_Value_Stop, "s")
		n.send(second)
		n.silent() // by now the second was read
		resume()
		if reply, _ := n.receive(); !acctclient.Verify(reply, second, []byte(secret)) {
			t.Error("the newer request was not the one answered")
		}
		n.silent()
		l.observer.wait(t, radiusacct.ResultDropped, 1)
		if got := l.recorder.recorded(); len(got) != 2 || got[1].Kind != subscriber.EventStop {
			t.Errorf("recorded %+v, want both in order", got)
		}
	})
}

func TestCacheLifetime_ACCT15(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	request := startRequest(1, "s")
	n.ask(request, secret)
	l.clock.advance(5 * time.Second)
	n.ask(request, secret)
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events after 5 s, want 1", got)
	}
	l.clock.advance(25 * time.Second)
	n.ask(request, secret)
	if got := len(l.recorder.recorded()); got != 2 {
		t.Errorf("%d events after 30 s, want 2", got)
	}
}

func TestDelayTimeKeepsEventTime_ACCT16(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	n.ask(startRequest(1, "s"), secret)
	l.clock.advance(10 * time.Second)
	n.ask(startRequest(2, "s", number(rfc2866.AcctDelayTime_Type, 10)), secret)
	got := l.recorder.recorded()
	if apart := got[1].At.Sub(got[0].At).Abs(); apart > 2*time.Second {
		t.Errorf("event times are %v apart", apart)
	}
}

func TestMessageAuthenticator_ACCT17(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) {
		strict := clientA()
		strict.Name, strict.Prefix = "strict", netip.MustParsePrefix("127.0.0.5/32")
		strict.RequireMessageAuthenticator = true
		o.Clients = append(o.Clients, strict)
	})
	lax, strict := newNAS(t, "127.0.0.2", l.addr), newNAS(t, "127.0.0.5", l.addr)
	lax.ask(startRequest(1, "without"), secret)
	lax.ask(withMessageAuth(startRequest(2, "with"), 1), secret)
	strict.ask(withMessageAuth(startRequest(3, "with"), 1), secret)
	strict.send(startRequest(4, "without"))
	strict.silent()
	l.observer.wait(t, "strict/unread/bad_authenticator", 1)
}

func TestStatusServer_ACCT18(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	if reply := n.ask(statusServer(9, secret), secret); len(reply) != 20 {
		t.Errorf("reply is %x, want no attributes", reply)
	}
	if got := len(l.recorder.recorded()); got != 0 {
		t.Errorf("%d events, want none", got)
	}
	if got := l.observer.count("a/status_server/ok"); got != 1 {
		t.Errorf("counted %d, want 1", got)
	}
}

func TestAcknowledgeIncomplete_ACCT20(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) { o.Clients[0].AcknowledgeIncomplete = true })
	n := newNAS(t, "127.0.0.2", l.addr)
	n.ask(packet(4, 1, secret, attribute(44, []byte("s"))), secret)
	n.ask(packet(4, 2, secret, number(40, 1)), secret)
	if got := len(l.recorder.recorded()); got != 0 {
		t.Errorf("%d events, want none", got)
	}
	l.observer.wait(t, radiusacct.ResultNoRecord, 2)
}

func TestOtherStatusTypes_ACCT27(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	other := []uint32{0, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 1 << 31}
	for i, status := range other {
		n.ask(packet(4, byte(i), secret, number(40, status)), secret)
	}
	if got := len(l.recorder.recorded()); got != 0 {
		t.Errorf("%d events, want none", got)
	}
	l.observer.wait(t, "a/other/no_record", len(other))
}

// TestForbiddenAttributes_ACCT27: attributes that RFC 2866 section 5.13 forbids in
// accounting are ignored, and none of them is in the reply.
func TestForbiddenAttributes_ACCT27(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	for i, kind := range []radius.Type{2, 3, 18, 24} {
		if reply := n.ask(startRequest(byte(i), fmt.Sprint("s", i), attribute(kind, []byte("forbidden"))), secret); len(reply) != 20 {
			t.Errorf("reply to attribute %d is %x", kind, reply)
		}
	}
	if got := len(l.recorder.recorded()); got != 4 {
		t.Errorf("%d events, want 4", got)
	}
}

func TestBurst_ACCT26(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) { o.Workers, o.QueueLength, o.BatchSize = 1, 16, 8 })
	n := newNAS(t, "127.0.0.2", l.addr)
	resume := l.recorder.stall()
	requests := make(map[byte][]byte)
	for id := range 200 {
		requests[byte(id)] = startRequest(byte(id), fmt.Sprint("s", id))
		n.send(requests[byte(id)])
	}
	l.observer.wait(t, radiusacct.ResultDropped, 200-16-8)
	resume()
	for rounds := 0; len(requests) > 0; rounds++ {
		if rounds > 200 {
			t.Fatalf("%d requests never answered", len(requests))
		}
		for _, request := range requests {
			n.send(request)
		}
		n.silentOr(func(reply []byte) { delete(requests, reply[1]) })
	}
	seen := make(map[string]int)
	for _, ev := range l.recorder.recorded() {
		seen[ev.AcctSessionID]++
	}
	for session, times := range seen {
		if times != 1 {
			t.Errorf("%s recorded %d times", session, times)
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d sessions recorded, want 200", len(seen))
	}
}

// silentOr passes replies to take until its own probe is answered.
func (n *nas) silentOr(take func([]byte)) {
	n.t.Helper()
	probe := statusServer(0xee, secret)
	n.send(probe)
	for {
		reply, _ := n.receive()
		if acctclient.Verify(reply, probe, []byte(secret)) {
			return
		}
		take(reply)
	}
}

func TestReload_ACCT30(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	request := startRequest(1, "s")
	n.ask(request, secret)

	renewed := clientA()
	renewed.Secret, renewed.PreviousSecret = []byte("renewed"), renewed.Secret
	if err := l.SetClients([]radiusacct.Client{renewed}); err != nil {
		t.Fatal(err)
	}
	n.ask(request, secret)
	if got := len(l.recorder.recorded()); got != 1 {
		t.Errorf("%d events, want the cache to survive the reload", got)
	}
	n.ask(resign(startRequest(2, "s2"), "renewed"), "renewed")
	n.ask(startRequest(3, "s3"), secret)
	n.ask(statusServer(4, "renewed"), "renewed")

	if err := l.SetClients([]radiusacct.Client{{Name: "a"}}); err == nil {
		t.Error("a broken configuration was accepted")
	}
	n.ask(startRequest(5, "s5"), secret)
	if err := l.SetClients(nil); err != nil {
		t.Fatal(err)
	}
	n.send(startRequest(6, "s6"))
	l.observer.wait(t, radiusacct.ResultUnknownClient, 1)
}

// TestSecretOverlap_ACCT30 changes the secret of a client whose NASes change it one by one,
// and then removes the old secret.
func TestSecretOverlap_ACCT30(t *testing.T) {
	l := start(t)
	early, late := newNAS(t, "127.0.0.2", l.addr), newNAS(t, "127.0.0.3", l.addr)
	overlap, renewed := clientA(), clientA()
	overlap.Secret, overlap.PreviousSecret = []byte("renewed"), []byte(secret)
	renewed.Secret = []byte("renewed")

	late.ask(startRequest(1, "s1"), secret)
	if err := l.SetClients([]radiusacct.Client{overlap}); err != nil {
		t.Fatal(err)
	}
	early.ask(resign(startRequest(1, "s2"), "renewed"), "renewed")
	late.ask(startRequest(2, "s3"), secret)
	late.ask(withMessageAuth(startRequest(3, "s4"), 1), secret)
	late.ask(statusServer(4, secret), secret)

	resume := l.recorder.stall()
	pending := startRequest(5, "s5")
	late.send(pending)
	l.recorder.entered(t)
	if err := l.SetClients([]radiusacct.Client{renewed}); err != nil {
		t.Fatal(err)
	}
	resume() // a request under the old secret is answered under it
	if reply, _ := late.receive(); !acctclient.Verify(reply, pending, []byte(secret)) {
		t.Error("bad reply to the request in progress")
	}
	late.send(startRequest(6, "s6"))
	l.observer.wait(t, "a/unread/bad_authenticator", 1)
	early.ask(resign(startRequest(2, "s7"), "renewed"), "renewed")
}

// TestIPv6Transport_ACCT30 has clients of both families, on sockets of one and of both.
func TestIPv6Transport_ACCT30(t *testing.T) {
	for _, listen := range []string{"[::1]:0", "[::]:0", ":0"} {
		t.Run(listen, func(t *testing.T) {
			l := start(t, func(o *radiusacct.Options) {
				o.Listen = []string{listen}
				o.Clients = append(o.Clients, radiusacct.Client{Name: "six", Prefix: netip.MustParsePrefix("::1/128"), Secret: []byte(secret)})
			})
			six := netip.AddrPortFrom(netip.IPv6Loopback(), l.addr.Port())
			newNAS(t, "::1", six).ask(packet(4, 1, secret, number(40, 1), attribute(44, []byte("s"))), secret)
			if got := l.recorder.recorded(); len(got) != 1 || got[0].Client != "six" || got[0].NAS != "::1" {
				t.Errorf("recorded %+v", got)
			}
			if listen == ":0" {
				four := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.addr.Port())
				newNAS(t, "127.0.0.2", four).ask(startRequest(1, "s"), secret)
			}
		})
	}
}

// TestShutdownFinishes_I2 stops the server during a Record call.
func TestShutdownFinishes_I2(t *testing.T) {
	l := start(t)
	n := newNAS(t, "127.0.0.2", l.addr)
	resume := l.recorder.stall()
	request := startRequest(1, "s")
	n.send(request)
	l.recorder.entered(t)
	stopped := make(chan struct{})
	go func() { l.stop(); close(stopped) }()
	resume()
	if reply, _ := n.receive(); !acctclient.Verify(reply, request, []byte(secret)) {
		t.Error("bad reply")
	}
	<-stopped
}

func TestShutdownGivesUp(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) { o.Grace = time.Millisecond })
	n := newNAS(t, "127.0.0.2", l.addr)
	defer l.recorder.stall()()
	n.send(startRequest(1, "s"))
	l.recorder.entered(t)
	l.stop() // returns although the database never answers
	if got := l.observer.count(radiusacct.ResultStoreFailed); got != 1 {
		t.Errorf("store_failed counted %d, want 1", got)
	}
}

// shortRecorder returns no errors at all.
type shortRecorder struct{}

func (shortRecorder) Record(context.Context, []subscriber.Event) []error { return nil }

func TestRecorderThatSaysNothing_I2(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) { o.Recorder = shortRecorder{} })
	n := newNAS(t, "127.0.0.2", l.addr)
	n.send(startRequest(1, "s"))
	l.observer.wait(t, radiusacct.ResultStoreFailed, 1)
	n.silent()
}
