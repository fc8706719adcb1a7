package system

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestAnotherClientsSubscriber_SES16: the events of one RADIUS client for the address of
// another client's subscriber change nothing for that subscriber: not its record, its live
// flow, its conntrack entries, nor the effect of its next events. They are counted, and
// shown by sessionctl.
func TestAnotherClientsSubscriber_SES16(t *testing.T) {
	w := start(t, rig.Options{Clients: []string{"name: other, prefix: 127.9.0.0/24, secret: " + rig.Secret}})
	own := sessionOf(alice, "a-1")
	block := w.online(own)
	f := w.flow(alice)
	other := func(status rfc2866.AcctStatusType, id string, ahead, lasted time.Duration) {
		t.Helper()
		w.must(w.SendFrom(w.ctx, "127.9.0.1", acctclient.Request{
			Status: status, SessionID: id, UserName: "mallory", FramedAddress: alice, NASIdentifier: "other-nas",
			EventTime: time.Now().Add(ahead), SessionTime: lasted,
		}))
	}
	for _, told := range []struct {
		what          string
		status        rfc2866.AcctStatusType
		id            string
		ahead, lasted time.Duration
	}{
		{what: "an Interim of a session nobody knows", status: interimStatus, id: "x-1"},
		{what: "an Interim that counts from before", status: interimStatus, id: "x-2", lasted: time.Hour},
		{what: "a Start", status: startStatus, id: "x-3"},
		{what: "a Start stamped ahead", status: startStatus, id: "x-4", ahead: 299 * time.Second},
		{what: "a Start stamped behind", status: startStatus, id: "x-5", ahead: -time.Hour},
		{what: "a Stop of the first", status: stopStatus, id: "x-1"},
		{what: "a Stop of one that was never told of", status: stopStatus, id: "x-6"},
		{what: "an Interim under the other's identifier", status: interimStatus, id: own.ID},
		{what: "a Stop under the other's identifier", status: stopStatus, id: own.ID},
	} {
		record := w.redis("HGET", recordKey(alice), "version")
		other(told.status, told.id, told.ahead, told.lasted)
		if now := w.redis("HGET", recordKey(alice), "version"); now != record {
			t.Errorf("after %s of another client the record of alice was written: %q, was %q", told.what, now, record)
		}
		w.passes(f, "alice after "+told.what+" of another client")
		w.must(w.Report(w.ctx, interimStatus, own))
	}
	if b, err := w.AwaitState(w.ctx, alice, "ACTIVE"); err != nil || b != block {
		t.Errorf("alice has %+v, had %+v, %v", b, block, err)
	}
	w.counted(`sessiond_accounting_refused_total{client="other",verdict="foreign_holder"}`, 6)
	w.counted(`sessiond_accounting_refused_total{client="bng1",verdict="ended"}`, 0)
	w.counted(`sessiond_accounting_refused_total{client="bng1",verdict="held"}`, 0)
	w.counted(`sessiond_radius_requests_total{client="other",result="no_record",type="start"}`, 3)
	w.counted(`sessiond_accounting_verdicts_total{group="default",verdict="refreshed"}`, 9)
	w.refusedOf("other-nas", "foreign_holder", 6)
	if log := w.Daemon.Log(); strings.Count(log, "address of another RADIUS client's subscriber") != 1 {
		t.Error("the log does not say once that a client reports another's address")
	}

	w.must(w.Offline(w.ctx, own))
	w.gone(alice)
	other(interimStatus, "x-7", 0, 10*time.Second) // the holder's own client has reported its end
	if b, err := w.AwaitState(w.ctx, alice, "ACTIVE"); err != nil || b.UserName != "mallory" {
		t.Errorf("after the holder's Stop the other client's session has %+v, %v", b, err)
	}
}

// refusedOf checks the refused events of a NAS that sessionctl shows.
func (w *world) refusedOf(nas, verdict string, want int) {
	w.t.Helper()
	var shown struct {
		Refused map[string]string `json:"refused"`
	}
	w.must(json.Unmarshal([]byte(w.ctl("-o", "json", "nas", "get", nas)), &shown))
	if shown.Refused[verdict] != strconv.Itoa(want) {
		w.t.Errorf("sessionctl shows %v refused of %s, want %d %s", shown.Refused, nas, want, verdict)
	}
}

// TestBoundClient_SES16: a client that is bound to prefixes or groups begins nothing
// outside of them, also at free addresses. Sessions from before it was bound go on and end
// as usual.
func TestBoundClient_SES16(t *testing.T) {
	west, north := netip.MustParseAddr("100.96.0.1"), netip.MustParseAddr("100.96.0.2")
	const secret = ", secret: " + rig.Secret
	w := start(t, rig.Options{
		Lab: netlab.Options{
			Subscribers: []netip.Addr{alice, bob, west, north},
			Pool:        []netip.Prefix{netip.MustParsePrefix("198.51.100.0/27")},
		},
		Inside: "100.64.0.0/11",
		Groups: []string{"name: west, inside: [100.96.0.0/11], outside: [198.51.100.32/28], hold: 2s"},
		Clients: []string{
			"name: free, prefix: 127.9.1.0/24" + secret,
			"name: narrow, prefix: 127.9.2.0/24, inside: [100.96.0.0/32, " + north.String() + "/32]" + secret,
			"name: grouped, prefix: 127.9.3.0/24, groups: [west]" + secret,
		},
	})
	tell := func(source string, status rfc2866.AcctStatusType, id string, inside netip.Addr) {
		t.Helper()
		w.must(w.SendFrom(w.ctx, source, acctclient.Request{
			Status: status, SessionID: id, UserName: id, FramedAddress: inside, NASIdentifier: "nas-" + source, EventTime: time.Now(),
		}))
	}
	for _, source := range []string{"127.9.2.1", "127.9.3.1"} {
		tell(source, startStatus, "s1-"+source, alice)
		tell(source, interimStatus, "s2-"+source, alice)
		tell(source, stopStatus, "s3-"+source, alice)
	}
	tell("127.9.2.1", startStatus, "n-1", west)
	if online := w.ctl("-o", "json", "subscriber", "list"); online != "" {
		t.Errorf("bound clients opened\n%s", online)
	}
	for client, want := range map[string]int{"narrow": 4, "grouped": 3, "free": 0} {
		w.counted(`sessiond_accounting_refused_total{client="`+client+`",verdict="foreign_address"}`, want)
	}
	w.counted(`sessiond_radius_requests_total{client="grouped",result="no_record",type="start"}`, 1)
	w.counted(`sessiond_radius_requests_total{client="grouped",result="no_record",type="stop"}`, 1)
	w.refusedOf("nas-127.9.3.1", "foreign_address", 3)
	if table := w.ctl("nas", "list"); !strings.Contains(table, "3 foreign_address") {
		t.Errorf("printed\n%s", table)
	}
	tell("127.9.2.1", startStatus, "n-2", north)
	tell("127.9.3.1", startStatus, "g-1", west)
	tell("127.9.1.1", startStatus, "f-1", alice)
	tell("127.9.1.1", startStatus, "f-2", bob)
	for _, inside := range []netip.Addr{north, west, alice, bob} {
		_, err := w.AwaitState(w.ctx, inside, "ACTIVE")
		w.must(err)
	}
	fa, fb := w.flow(alice), w.flow(bob)

	taken, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return strings.Replace(config, "prefix: 127.9.1.0/24", "groups: [west], prefix: 127.9.1.0/24", 1)
	})
	if w.must(err); !taken {
		t.Fatal("the reload was refused")
	}
	tell("127.9.1.1", interimStatus, "f-1", alice)
	tell("127.9.1.1", startStatus, "f-3", bob)
	w.passes(fa, "alice, who was online before her client was bound")
	w.passes(fb, "bob, whose address his client may not give to another")
	w.counted(`sessiond_accounting_refused_total{client="free",verdict="foreign_address"}`, 1)
	tell("127.9.1.1", stopStatus, "f-1", alice)
	w.gone(alice)
}

// TestHolderWithoutClient_SES16: a holder whose client is no longer configured keeps its
// address from no other client; a holder of a renamed client is protected under the new
// name.
func TestHolderWithoutClient_SES16(t *testing.T) {
	const secret = ", secret: " + rig.Secret
	w := start(t, rig.Options{Memory: true, Clients: []string{
		"name: old, prefix: 127.9.1.0/24" + secret, "name: other, prefix: 127.9.2.0/24" + secret,
	}})
	tell := func(source string, status rfc2866.AcctStatusType, id string, inside netip.Addr) {
		t.Helper()
		w.must(w.SendFrom(w.ctx, source, acctclient.Request{
			Status: status, SessionID: id, UserName: "user-" + id, FramedAddress: inside, NASIdentifier: "nas-" + source, EventTime: time.Now(),
		}))
	}
	holder := func(inside netip.Addr, want string) {
		t.Helper()
		if got := w.redis("HGET", recordKey(inside), "acct_session_id"); got != want {
			t.Errorf("%v is held by %q, want %q", inside, got, want)
		}
	}
	reload := func(old, by string) {
		t.Helper()
		taken, err := w.Daemon.Reload(w.ctx, func(config string) string { return strings.Replace(config, old, by, 1) })
		if w.must(err); !taken {
			t.Fatal("the reload was refused")
		}
	}
	tell("127.9.1.1", startStatus, "a", alice)
	tell("127.9.1.1", startStatus, "b", bob)
	tell("127.9.2.1", startStatus, "x", alice)
	holder(alice, "a")

	reload("name: old", "name: new")
	tell("127.9.1.1", interimStatus, "a", alice)
	tell("127.9.2.1", startStatus, "x", alice)
	holder(alice, "a")
	code, err := w.Daemon.Stop()
	if w.must(err); code != 0 {
		t.Errorf("stopped with %d", code)
	}
	w.must(w.Daemon.Start(w.ctx))
	tell("127.9.2.1", startStatus, "x", alice)
	holder(alice, "a")

	reload("name: new, prefix: 127.9.1.0/24", "name: third, prefix: 127.9.3.0/24")
	tell("127.9.2.1", startStatus, "x", alice)
	holder(alice, "x")
	tell("127.9.2.1", startStatus, "y", bob)
	holder(bob, "y")

	reload("name: other,", "name: other, realm: core,")
	reload("name: third,", "name: third, realm: core,")
	tell("127.9.3.1", startStatus, "z", bob)
	holder(bob, "z")
}

// TestPlacesOfAClient_I10: a client that begins sessions at many addresses gets no more of
// the pool than its max_subscribers, and other clients' subscribers are served.
func TestPlacesOfAClient_I10(t *testing.T) {
	w := start(t, rig.Options{
		Memory: true,
		Clients: []string{
			"name: greedy, prefix: 127.9.1.0/24, max_subscribers: 3, secret: " + rig.Secret,
			"name: other, prefix: 127.9.2.0/24, secret: " + rig.Secret,
		},
	})
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 3, byte(i)}) }
	tell := func(source string, status rfc2866.AcctStatusType, i int) {
		t.Helper()
		w.must(w.SendFrom(w.ctx, source, acctclient.Request{
			Status: status, SessionID: fmt.Sprint("s-", i), UserName: fmt.Sprint("u-", i), FramedAddress: address(i),
			NASIdentifier: "nas-" + source, EventTime: time.Now(),
		}))
	}
	active := func(i int) {
		t.Helper()
		_, err := w.AwaitState(w.ctx, address(i), "ACTIVE")
		w.must(err)
	}
	for i := range 3 {
		tell("127.9.1.1", startStatus, i)
		active(i)
	}
	for i := 3; i < 20; i++ {
		tell("127.9.1.1", startStatus, i)
	}
	w.countsOnline(3)
	w.counted(`sessiond_accounting_refused_total{client="greedy",verdict="client_full"}`, 17)
	for i := 20; i < 24; i++ {
		tell("127.9.2.1", startStatus, i)
		active(i)
	}
	tell("127.9.1.1", stopStatus, 0)
	w.countsOnline(6)
	tell("127.9.1.1", interimStatus, 7)
	active(7)
	taken, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return strings.Replace(config, "max_subscribers: 3", "max_subscribers: 4", 1)
	})
	if w.must(err); !taken {
		t.Fatal("the reload was refused")
	}
	tell("127.9.1.1", interimStatus, 8)
	active(8)
}
