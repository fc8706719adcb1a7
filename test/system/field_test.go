package system

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// test/field shows these cases by records; here live flows show them.

const (
	secondProxy  = "127.0.2.1"
	secondSource = "127.0.1.2" // of the rig's own client
	twoProxies   = "name: bng2, prefix: 127.0.2.0/24, secret: " + rig.Secret
)

// accounting returns a request of a NAS whose clock is ahead of ours.
func accounting(status rfc2866.AcctStatusType, nas string, ahead time.Duration, s rig.Session) acctclient.Request {
	return acctclient.Request{
		Status: status, SessionID: s.ID, UserName: s.User, FramedAddress: s.Inside, NASIdentifier: nas,
		EventTime: time.Now().Add(ahead), SendDelay: true,
	}
}

// flowEntries lists the conntrack entries of a flow by identifier, which differs in a later
// entry on the same ports.
func (w *world) flowEntries(f *netlab.Flow) []string {
	w.t.Helper()
	out, err := w.Lab.CGN.Output(w.ctx, "conntrack", "-L", "-o", "id")
	w.must(err)
	local, remote := f.Inside.Local(), f.Inside.Remote()
	tuple := fmt.Sprintf(" src=%s dst=%s sport=%d dport=%d ", local.Addr(), remote.Addr(), local.Port(), remote.Port())
	var ids []string
	for line := range strings.Lines(string(out)) {
		if _, id, ok := strings.Cut(line, " id="); ok && strings.Contains(line, tuple) {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids
}

// pass waits until all clocks have advanced by d.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := time.Now().Add(d)
	w.must(w.Until(w.ctx, "time to pass", func() (bool, error) { return !time.Now().Before(end), nil }))
}

// TestNewcomerThroughSkewedNAS_SES07: the Stop of u1 is lost, and its address goes to u2
// through another NAS of the same client; the clock of one of them is hours off. The flows
// of u1 are cut and nothing remains of them; u2 gets another block.
func TestNewcomerThroughSkewedNAS_SES07(t *testing.T) {
	const start = rfc2866.AcctStatusType_Value_Start
	for name, ahead := range map[string][2]time.Duration{
		"skewed second":       {0, -8 * time.Hour},
		"skewed first":        {3 * time.Hour, 0},
		"skewed first behind": {-8 * time.Hour, 0},
		"both":                {-8 * time.Hour, 3 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := start2(t)
			u1, u2 := rig.Session{ID: "g1", User: "u1", Inside: alice}, rig.Session{ID: "t1", User: "u2", Inside: alice}
			w.must(w.SendFrom(w.ctx, "127.0.1.1", accounting(start, "good", ahead[0], u1)))
			before, err := w.AwaitState(w.ctx, alice, "ACTIVE")
			w.must(err)
			f := w.flow(alice)
			w.passes(f, "u1")
			if !before.Covers(f.Source()) {
				t.Fatalf("u1 is seen as %v, want within %+v", f.Source(), before)
			}

			w.must(w.SendFrom(w.ctx, secondSource, accounting(start, "tz", ahead[1], u2)))
			now := w.awaitUser(alice, "u2")
			w.dead(f, "u1")
			if left := w.flowEntries(f); len(left) > 0 {
				t.Errorf("entries of u1's flow remain: %q", left)
			}
			g := w.flow(alice)
			w.passes(g, "u2")
			if !now.Covers(g.Source()) || before.Covers(g.Source()) {
				t.Errorf("u2 is seen as %v, want within %+v and not %+v", g.Source(), now, before)
			}
			w.must(w.SendFrom(w.ctx, secondSource, accounting(rfc2866.AcctStatusType_Value_InterimUpdate, "tz", ahead[1], u2)))
			w.must(w.SendFrom(w.ctx, "127.0.1.1", accounting(rfc2866.AcctStatusType_Value_Stop, "good", ahead[0], u1)))
			w.passes(g, "u2, after the late Stop of u1")
			w.must(w.SendFrom(w.ctx, secondSource, accounting(rfc2866.AcctStatusType_Value_Stop, "tz", ahead[1], u2)))
			w.gone(alice)
		})
	}
}

// start2 starts a world with two clients and two listeners.
func start2(t *testing.T) *world {
	return start(t, rig.Options{Clients: []string{twoProxies}, ListenAlso: []string{"127.0.0.2:0"}, Hold: time.Minute})
}

// awaitUser waits until the address is bound to that user.
func (w *world) awaitUser(inside netip.Addr, user string) (found rig.Binding) {
	w.t.Helper()
	w.must(w.Until(w.ctx, "the binding of "+user, func() (bool, error) {
		bindings, err := w.Bindings(w.ctx, inside)
		for _, b := range bindings {
			if b.State == "ACTIVE" && b.UserName == user {
				found = b
				return true, nil
			}
		}
		return false, err
	}))
	return found
}

// TestNothingCut_SES02_SES21_ACCT15 sends a Start again after the reply cache has expired,
// to another address or another daemon, an Interim through a second proxy, and the
// accounting of a service. None of these costs the subscriber a flow.
func TestNothingCut_SES02_SES21_ACCT15(t *testing.T) {
	w := start2(t)
	s := rig.Session{ID: "144DFF00000A1156B71E44", User: "sub1", Inside: alice}
	begin := accounting(rfc2866.AcctStatusType_Value_Start, "PE1", -8*time.Hour, s)
	w.must(w.SendFrom(w.ctx, "127.0.1.1", begin))
	before := w.awaitUser(alice, s.User)
	began := time.Now()
	f := w.flow(alice)
	w.passes(f, "sub1")
	entry := w.flowEntries(f)
	if len(entry) != 1 {
		t.Fatalf("entries of the flow: %q", entry)
	}

	counted := func() acctclient.Request {
		r := begin
		r.DelayTime = time.Since(began)
		return r
	}
	service := func(status rfc2866.AcctStatusType) acctclient.Request {
		r := accounting(status, "PE1", -8*time.Hour, s)
		r.SessionID, r.MultiSessionID = "144DFF00000A2556B757DA", s.ID
		return r
	}
	interim := func() acctclient.Request {
		r := accounting(rfc2866.AcctStatusType_Value_InterimUpdate, "PE1", -8*time.Hour, s)
		r.SessionTime = time.Since(began)
		return r
	}
	for what, send := range map[string]func() error{
		"Start again":                  func() error { return w.SendFrom(w.ctx, "127.0.1.1", begin) },
		"Start again, delayed":         func() error { return w.SendFrom(w.ctx, "127.0.1.1", counted()) },
		"to the second address":        func() error { return rig.SendTo(w.ctx, w.Daemon.Listening()[1], "127.0.1.1:0", begin) },
		"Start again, second proxy":    func() error { return w.SendFrom(w.ctx, secondProxy, begin) },
		"Interim, second proxy":        func() error { return w.SendFrom(w.ctx, secondProxy, interim()) },
		"Start of a service":           func() error { return w.SendFrom(w.ctx, "127.0.1.1", service(rfc2866.AcctStatusType_Value_Start)) },
		"Stop of a service":            func() error { return w.SendFrom(w.ctx, "127.0.1.1", service(rfc2866.AcctStatusType_Value_Stop)) },
		"Interim":                      func() error { return w.SendFrom(w.ctx, "127.0.1.1", interim()) },
		"Start again, another daemon":  func() error { return w.again(begin) },
		"Start delayed, another still": func() error { return w.again(counted()) },
	} {
		w.must(send())
		if now := w.awaitUser(alice, s.User); now != before {
			t.Errorf("%s: binding %+v, was %+v", what, now, before)
		}
		w.passes(f, what)
		if now := w.flowEntries(f); !slices.Equal(now, entry) {
			t.Errorf("%s: entry %q, was %q", what, now, entry)
		}
	}
}

// again restarts the daemon, on the same Redis and kernel, and sends a request to it.
func (w *world) again(r acctclient.Request) error {
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	return w.SendFrom(w.ctx, "127.0.1.1", r)
}

// TestRestartThatIsNone_SES15: a NAS sends Accounting-On although its subscribers are
// online. The next Interim brings the subscriber back, to its outside address and ports of
// before.
func TestRestartThatIsNone_SES15(t *testing.T) {
	w := start2(t)
	s := rig.Session{ID: "j1", User: "j1", Inside: alice}
	w.must(w.Send(w.ctx, accounting(rfc2866.AcctStatusType_Value_Start, "erx1", 0, s)))
	before := w.awaitUser(alice, s.User)
	f := w.flow(alice)
	w.pass(3 * time.Second) // event times are whole seconds
	w.must(w.Send(w.ctx, accounting(rfc2866.AcctStatusType_Value_AccountingOn, "erx1", 0, rig.Session{})))
	w.gone(alice)
	w.dead(f, "j1")
	w.pass(3 * time.Second)
	w.must(w.Send(w.ctx, accounting(rfc2866.AcctStatusType_Value_InterimUpdate, "erx1", 0, s)))
	if now := w.awaitUser(alice, s.User); now != before {
		t.Errorf("binding %+v, was %+v", now, before)
	}
	w.passes(w.flow(alice), "j1")
}
