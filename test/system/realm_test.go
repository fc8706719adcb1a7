package system

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

const (
	startStatus   = rfc2866.AcctStatusType_Value_Start
	interimStatus = rfc2866.AcctStatusType_Value_InterimUpdate
	stopStatus    = rfc2866.AcctStatusType_Value_Stop
	onStatus      = rfc2866.AcctStatusType_Value_AccountingOn
)

// proxy is a source of accounting with its secret.
type proxy struct{ source, secret string }

// sendFrom sends a request through a proxy and waits for the answer.
func (w *world) sendFrom(p proxy, r acctclient.Request) {
	w.t.Helper()
	c, err := acctclient.Dial(w.ctx, w.Daemon.RADIUS, p.source+":0", acctclient.Options{Secret: []byte(p.secret)})
	w.must(err)
	defer c.Close()
	w.must(c.Account(w.ctx, r))
}

// edge returns a request of a NAS that proxies forward.
func edge(status rfc2866.AcctStatusType, id, user string, inside netip.Addr) acctclient.Request {
	return acctclient.Request{Status: status, SessionID: id, UserName: user, FramedAddress: inside, NASIdentifier: "edge1"}
}

// counted waits until a counter has reached a value.
func (w *world) counted(series string, want int) {
	w.t.Helper()
	line := fmt.Sprintf("%s %d\n", series, want)
	w.soon(5*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, line, func() (bool, error) {
			_, text, err := w.Daemon.Get(ctx, "/metrics")
			return strings.Contains(text, line), err
		})
	})
}

// TestTwoProxies_SES02_SES15: one NAS heard through two clients of a realm, of which one
// has two sources with secrets of their own, is one NAS: an Interim changes nothing for the
// subscriber, and a Stop or a restart ends it, through whichever proxy.
func TestTwoProxies_SES02_SES15(t *testing.T) {
	first, second := proxy{"127.7.0.1", "one"}, proxy{"127.7.0.2", "two"}
	third := proxy{"127.7.0.3", "three"}
	w := start(t, rig.Options{Clients: []string{
		"name: p1, prefix: 127.7.0.1/32, secret: one, realm: core",
		"name: p2, prefixes: [127.7.0.2/32, 127.7.1.0/24], secret: two, realm: core",
		"name: p2, prefix: 127.7.0.3/32, secret: three, realm: core",
	}})
	w.sendFrom(first, edge(startStatus, "E1", "p1", alice))
	_, err := w.AwaitState(w.ctx, alice, "ACTIVE")
	w.must(err)
	f := w.flow(alice)
	w.sendFrom(second, edge(interimStatus, "E1", "p1", alice))
	w.sendFrom(third, edge(interimStatus, "E1", "p1", alice))
	w.sendFrom(proxy{"127.7.1.9", "two"}, edge(interimStatus, "E1", "p1", alice))
	w.passes(f, "alice, heard through four sources")
	w.counted(`sessiond_accounting_verdicts_total{group="default",verdict="refreshed"}`, 3)
	w.counted(`sessiond_radius_requests_total{client="p2",result="ok",type="interim"}`, 3)

	w.sendFrom(second, edge(stopStatus, "E1", "p1", alice))
	w.gone(alice)
	w.dead(f, "alice after the Stop through the other proxy")

	w.sendFrom(first, edge(startStatus, "E2", "p2", bob))
	_, err = w.AwaitState(w.ctx, bob, "ACTIVE")
	w.must(err)
	w.sendFrom(third, edge(onStatus, "", "", netip.Addr{}))
	w.gone(bob)
}

// TestNoRealmIsInferred_SES16: with infer_realms off, a client that reports all of another
// client's session, and then a restart of its NAS, ends no session, though neither has a
// realm; each of its events is counted.
func TestNoRealmIsInferred_SES16(t *testing.T) {
	w := start(t, rig.Options{Memory: true, Clients: []string{"name: other, prefix: 127.9.0.0/24, secret: " + rig.Secret}})
	_, err := w.Daemon.Reload(w.ctx, func(config string) string {
		return strings.Replace(config, "  radsec:", "  infer_realms: false\n  radsec:", 1)
	})
	w.must(err)
	_, err = w.Daemon.Stop() // a reload does not apply the key
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))
	own, other := proxy{"127.0.0.1", rig.Secret}, proxy{"127.9.0.1", rig.Secret}
	w.sendFrom(own, edge(startStatus, "E1", "p1", alice))
	record := w.redis("HGET", recordKey(alice), "version")
	for _, status := range []rfc2866.AcctStatusType{startStatus, interimStatus, stopStatus} {
		w.sendFrom(other, edge(status, "E1", "p1", alice))
	}
	w.sendFrom(other, edge(onStatus, "", "", netip.Addr{}))
	w.counted(`sessiond_accounting_refused_total{client="other",verdict="foreign_holder"}`, 2)
	w.counted(`sessiond_accounting_refused_total{client="other",verdict="foreign_nas"}`, 1)
	if now := w.redis("HGET", recordKey(alice), "version"); now != record {
		t.Errorf("the record of alice was written: %q, was %q", now, record)
	}
	w.sendFrom(own, edge(stopStatus, "E1", "p1", alice))
	if left := w.redis("EXISTS", recordKey(alice)); left != "0" {
		t.Error("its own client cannot end it")
	}
}

// TestNASConflict_SES16: two NASes behind one source have the factory's name. The restart
// of either ends no session and raises an alarm; identified by address, each has its own
// restarts.
func TestNASConflict_SES16(t *testing.T) {
	apart := proxy{"127.7.0.9", rig.Secret}
	w := start(t, rig.Options{Memory: true, Clients: []string{
		"name: apart, prefix: 127.7.0.9/32, secret: " + rig.Secret + ", nas_identity: both",
	}})
	of := func(r acctclient.Request, address string) acctclient.Request {
		r.NASIdentifier, r.NASAddress = "MikroTik", netip.MustParseAddr(address)
		return r
	}
	together := proxy{"127.0.0.1", rig.Secret}
	for i, p := range []proxy{together, apart} {
		name := fmt.Sprint("m", i)
		w.sendFrom(p, of(edge(startStatus, name+"a", "alice", alice), "192.0.2.1"))
		w.sendFrom(p, of(edge(startStatus, name+"b", "bob", bob), "192.0.2.2"))
		w.sendFrom(p, of(edge(onStatus, "", "", netip.Addr{}), "192.0.2.1"))
		if p == together {
			w.counted(`sessiond_accounting_verdicts_total{group="",verdict="nas_conflict"}`, 1)
			w.counted(`sessiond_nas_conflicts_total{client="bng1"}`, 1)
			w.counted(`sessiond_radius_requests_total{client="bng1",result="no_record",type="accounting_on"}`, 1)
			if online := w.ctl("-o", "json", "subscriber", "list"); strings.Count(online, "\n") != 2 {
				t.Errorf("a restart that is one of two NASes' ended somebody:\n%s", online)
			}
			for _, s := range []acctclient.Request{edge(stopStatus, name+"a", "alice", alice), edge(stopStatus, name+"b", "bob", bob)} {
				w.sendFrom(p, of(s, "192.0.2.1")) // the other client takes no address over
			}
			continue
		}
		w.soon(5*time.Second, func(ctx context.Context) error {
			return w.Until(ctx, "alice to be offline", func() (bool, error) {
				n, err := w.Redis.CLI(ctx, "EXISTS", recordKey(alice))
				return n == "0", err
			})
		})
		w.counted(`sessiond_nas_conflicts_total{client="apart"}`, 0)
		if online := w.ctl("-o", "json", "subscriber", "list", "--nas", "MikroTik@192.0.2.2"); strings.Count(online, "\n") != 1 {
			t.Errorf("behind the other NAS are\n%s", online)
		}
	}
}

// TestClassIsShown_ACCT23: Class is in the record, octet for octet, and is shown.
func TestClassIsShown_ACCT23(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	r := edge(startStatus, "E1", "p1", alice)
	for _, value := range []string{"gold\x00\xff 100%", "second\x01"} {
		r.Extra = append(r.Extra, &radius.AVP{Type: rfc2865.Class_Type, Attribute: []byte(value)})
	}
	w.must(w.Send(w.ctx, r))
	_, err := w.AwaitState(w.ctx, alice, "ACTIVE")
	w.must(err)
	var shown struct {
		Class       string   `json:"class"`
		MoreClasses []string `json:"more_classes"`
	}
	w.must(json.Unmarshal([]byte(w.ctl("-o", "json", "subscriber", "get", alice.String())), &shown))
	if shown.Class != "gold%00%FF 100%" || len(shown.MoreClasses) != 1 || shown.MoreClasses[0] != "second%01" {
		t.Errorf("shown: %+q", shown)
	}
}

// TestNokiaService_SES21: a service of SR OS, with all attributes of its session and a
// session identifier of its own, begins and ends while the subscriber's flows go on.
func TestNokiaService_SES21(t *testing.T) {
	w := start(t, rig.Options{})
	multi := func(r acctclient.Request, id string, more ...*radius.AVP) acctclient.Request {
		r.Extra = append(more, &radius.AVP{Type: rfc2866.AcctMultiSessionID_Type, Attribute: []byte(id)})
		return r
	}
	mark := &radius.AVP{Type: rfc2865.VendorSpecific_Type, Attribute: []byte("\x00\x00\x19\x7f\x97\x0crate-limit")}
	w.must(w.Send(w.ctx, multi(edge(startStatus, "144DFF00000A1156B71E44", "sub1", alice), "144DFF00000A0F56B71E43")))
	_, err := w.AwaitState(w.ctx, alice, "ACTIVE")
	w.must(err)
	f := w.flow(alice)
	for _, status := range []rfc2866.AcctStatusType{startStatus, interimStatus, stopStatus} {
		w.must(w.Send(w.ctx, multi(edge(status, "144DFF00000A2556B757DA", "sub1", alice), "144DFF00000A1156B71E44", mark)))
		w.passes(f, "a subscriber with a service")
	}
	w.counted(`sessiond_accounting_verdicts_total{group="",verdict="service_ignored"}`, 3)
	w.counted(`sessiond_radius_requests_total{client="bng1",result="no_record",type="stop"}`, 1)
	w.must(w.Send(w.ctx, multi(edge(interimStatus, "144DFF00000A1156B71E44", "sub1", alice), "144DFF00000A0F56B71E43")))
	w.passes(f, "a subscriber after its service")
}
