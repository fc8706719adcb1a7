package system

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc3162"
	"layeh.com/radius/rfc4818"
	"layeh.com/radius/rfc6911"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestIPv6IsShown_ACCT29_SES23: the IPv6 addresses and prefixes that a BNG reports, several
// of each, with shortened prefixes, are in the record and shown by sessionctl. A session
// with IPv6 alone is answered and shown nowhere, and its Stop does not end the subscriber's
// other session.
func TestIPv6IsShown_ACCT29_SES23(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	request := acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_Start, SessionID: "a-1", UserName: "alice", FramedAddress: alice,
		NASIdentifier: rig.NAS, EventTime: time.Now(), Extra: radius.Attributes{
			{Type: rfc6911.FramedIPv6Address_Type, Attribute: netip.MustParseAddr("2001:db8::7").AsSlice()},
			{Type: rfc3162.FramedIPv6Prefix_Type, Attribute: prefixAttribute("2001:db8:0:7::/64")},
			{Type: rfc4818.DelegatedIPv6Prefix_Type, Attribute: prefixAttribute("2001:db8:700::/56")},
			{Type: rfc4818.DelegatedIPv6Prefix_Type, Attribute: prefixAttribute("2001:db8:800::/48")},
		},
	}
	w.must(w.Send(w.ctx, request))
	_, err := w.AwaitState(w.ctx, alice, "ACTIVE")
	w.must(err)
	w.showsIPv6()

	request.SessionID, request.FramedAddress = "v6-1", netip.Addr{}
	w.must(w.Send(w.ctx, request))
	if list := w.ctl("-o", "json", "subscriber", "list"); strings.Count(list, "\n") != 1 {
		t.Errorf("a session without IPv4 is listed:\n%s", list)
	}
	request.Status = rfc2866.AcctStatusType_Value_Stop
	w.must(w.Send(w.ctx, request))
	w.showsIPv6()

	w.must(w.Daemon.Kill()) // so that it is read from the record
	w.must(w.Daemon.Start(w.ctx))
	w.showsIPv6()
}

func (w *world) showsIPv6() {
	w.t.Helper()
	var shown struct {
		Addresses []string `json:"framed_ipv6_addresses"`
		Prefixes  []string `json:"framed_ipv6_prefixes"`
		Delegated []string `json:"delegated_prefixes"`
	}
	w.must(json.Unmarshal([]byte(w.ctl("-o", "json", "subscriber", "get", alice.String())), &shown))
	if !slices.Equal(shown.Addresses, []string{"2001:db8::7"}) || !slices.Equal(shown.Prefixes, []string{"2001:db8:0:7::/64"}) ||
		!slices.Equal(shown.Delegated, []string{"2001:db8:700::/56", "2001:db8:800::/48"}) {
		w.t.Errorf("shown: %+v", shown)
	}
}

// prefixAttribute encodes a prefix as in RFC 3162 section 2.3, without the octets behind
// its length.
func prefixAttribute(text string) radius.Attribute {
	p := netip.MustParsePrefix(text)
	octets := p.Addr().AsSlice()[:(p.Bits()+7)/8]
	return append(radius.Attribute{0, byte(p.Bits())}, octets...)
}

// TestClientRecordTTL_SES18: the records of a client with a record_ttl of its own have that
// TTL, here none, also when a reload changes it; those of others have their group's.
func TestClientRecordTTL_SES18(t *testing.T) {
	const quiet = "127.18.18.18"
	w := start(t, rig.Options{Memory: true, RecordTTL: 2 * time.Hour, Clients: []string{
		"name: quiet, prefix: " + quiet + "/32, secret: " + rig.Secret + ", record_ttl: 0s",
	}})
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(alice, "a-1")))
	w.lives(alice, 2*time.Hour)
	w.reportFrom(quiet, rfc2866.AcctStatusType_Value_Start)
	w.lives(bob, 0)
	if shown := w.ctl("subscriber", "get", bob.String()); !strings.Contains(shown, "never") {
		t.Errorf("bob expires:\n%s", shown)
	}

	for _, ttl := range []time.Duration{3 * time.Hour, 0} {
		taken, err := w.Daemon.Reload(w.ctx, func(config string) string {
			before, after, _ := strings.Cut(config, "record_ttl: ")
			_, after, _ = strings.Cut(after, "}")
			return before + "record_ttl: " + strconv.Itoa(int(ttl.Seconds())) + "s}" + after
		})
		w.must(err)
		if !taken {
			t.Fatal("reload refused")
		}
		w.reportFrom(quiet, rfc2866.AcctStatusType_Value_InterimUpdate)
		w.lives(bob, ttl)
	}
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, sessionOf(alice, "a-1")))
	w.lives(alice, 2*time.Hour)
}

// reportFrom reports bob's session from a client's address.
func (w *world) reportFrom(source string, status rfc2866.AcctStatusType) {
	w.t.Helper()
	c, err := acctclient.Dial(w.ctx, w.Daemon.RADIUS, source+":0", acctclient.Options{Secret: []byte(rig.Secret)})
	w.must(err)
	defer c.Close()
	w.must(c.Account(w.ctx, acctclient.Request{
		Status: status, SessionID: "b-1", UserName: "bob", FramedAddress: bob, NASIdentifier: "quiet", EventTime: time.Now(),
	}))
}

// lives checks that the record's TTL is ttl, or none for 0.
func (w *world) lives(inside netip.Addr, ttl time.Duration) {
	w.t.Helper()
	text, err := w.Redis.CLI(w.ctx, "TTL", recordKey(inside))
	w.must(err)
	left, err := strconv.Atoi(text)
	w.must(err)
	want := int(ttl.Seconds())
	if ttl == 0 && left != -1 || ttl > 0 && (left > want || left < want-60) {
		w.t.Errorf("%v lives for %d s, want %d", inside, left, want)
	}
}

// TestStatusWithoutRedis_ACCT19: while accounting cannot be recorded, Status-Server stays
// unanswered, so that BNGs use another server.
func TestStatusWithoutRedis_ACCT19(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	c, err := acctclient.Dial(w.ctx, w.Daemon.RADIUS, "", acctclient.Options{
		Secret: []byte(rig.Secret), Timeout: 500 * time.Millisecond, Transmissions: 2,
	})
	w.must(err)
	defer c.Close()
	w.must(c.Status(w.ctx))
	w.must(w.Redis.Kill())
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "/readyz to say no", func() (bool, error) {
			code, _, err := w.Daemon.Get(ctx, "/readyz")
			return code == http.StatusServiceUnavailable, err
		})
	})
	if err := c.Status(w.ctx); !errors.Is(err, acctclient.ErrNoReply) {
		t.Errorf("Status-Server without Redis: %v, want no reply", err)
	}
	w.must(w.Redis.Start(w.ctx))
	w.soon(10*time.Second, w.awaitReadyz)
	w.must(c.Status(w.ctx))
}

// TestMoved_SES09: an Interim reports another address. All state of the old one is gone,
// the new one has a block, and its packets pass. An address of no group gets none.
func TestMoved_SES09(t *testing.T) {
	w := start(t, rig.Options{})
	s := sessionOf(alice, "a-1")
	w.online(s)
	f := w.flow(alice)
	w.passes(f, "alice at the old address")
	s.Inside = bob
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, s))
	w.gone(alice)
	w.dead(f, "alice at the old address")
	_, err := w.AwaitState(w.ctx, bob, "ACTIVE")
	w.must(err)
	f = w.flow(bob)
	w.passes(f, "alice at the new address")

	s.Inside = netip.MustParseAddr("203.0.113.77")
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, s))
	w.gone(bob)
	w.dead(f, "alice at a public address")
}
