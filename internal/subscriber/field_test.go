package subscriber

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A turn is an event and its expected verdict.
type turn struct {
	event Event
	want  Verdict
}

// play applies the turns to an empty database, and compares the sessions online
// at the end, as Acct-Session-Id by address.
func play(t *testing.T, turns []turn, online map[netip.Addr]string) {
	t.Helper()
	w := newWorld()
	for i, x := range turns {
		if d := w.apply(t, x.event); d.Verdict != x.want {
			t.Errorf("turn %d: %v, want %v", i, d.Verdict, x.want)
		}
		w.check(t)
	}
	if len(w.records) != len(online) {
		t.Errorf("online %v, want %v", w.records, online)
	}
	for inside, id := range online {
		if got := w.records[inside].AcctSessionID; got != id {
			t.Errorf("%v is %q, want %q", inside, got, id)
		}
	}
}

func as(id SessionID, user string) func(*Event) {
	return func(ev *Event) { ev.SessionID, ev.UserName = id, user }
}

func at1(inside netip.Addr) func(*Event) { return func(ev *Event) { ev.Inside = inside } }

// TestSetBack_SES07: a NAS's clock was set back, the Stop of the session at the
// address is lost, and the next session gets the address. If that was wrong,
// the first session gets the address back with an Interim, unless the other one
// sent an event since.
func TestSetBack_SES07(t *testing.T) {
	bob := as(you, "bob")
	before := []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventStart, time.Minute, bob, late(4*time.Minute)), TookOver},
	}
	play(t, append(slices.Clone(before),
		turn{makeEvent(EventInterim, 2*time.Minute, bob, up(time.Minute)), Refreshed},
		turn{makeEvent(EventInterim, 3*time.Minute, up(3*time.Minute)), Held},
		turn{makeEvent(EventStop, 4*time.Minute, up(3*time.Minute), bob), Stopped},
		turn{makeEvent(EventInterim, 5*time.Minute, up(5*time.Minute)), Opened},
	), map[netip.Addr]string{home: "a"})
	play(t, append(slices.Clone(before),
		turn{makeEvent(EventInterim, 3*time.Minute, up(3*time.Minute)), TookOver},
		turn{makeEvent(EventInterim, 4*time.Minute, up(4*time.Minute)), Refreshed},
	), map[netip.Addr]string{home: "a"})
}

// TestSupersededComesBack_SES14: a session that lost its address to another
// comes back with its Interim once the address is free; not before (SES-14),
// and not by an Interim that was sent before the loss.
func TestSupersededComesBack_SES14(t *testing.T) {
	bob := as(you, "bob")
	play(t, []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventStart, time.Minute, bob), TookOver},
		{makeEvent(EventInterim, 2*time.Minute, up(2*time.Minute)), Ended},
		{makeEvent(EventStop, 3*time.Minute, bob, up(2*time.Minute)), Stopped},
		{makeEvent(EventInterim, 50*time.Second, up(50*time.Second)), Ended},
		{makeEvent(EventInterim, 4*time.Minute, up(4*time.Minute)), Opened},
	}, map[netip.Addr]string{home: "a"})
}

// TestSharedIdentifier_SES01: pppd gives one Acct-Session-Id to all sessions
// that begin in the same second.
func TestSharedIdentifier_SES01(t *testing.T) {
	bob, nobody := as(me, "bob"), as(me, "")
	there := at1(away)
	play(t, []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventStart, 0, bob, there), Opened},
		{makeEvent(EventInterim, time.Minute, up(time.Minute)), Refreshed},
		{makeEvent(EventInterim, time.Minute, bob, there, up(time.Minute)), Refreshed},
		{makeEvent(EventInterim, 2*time.Minute, nobody, there, up(2*time.Minute)), Refreshed},
		{makeEvent(EventStart, 0, bob, there), Refreshed},
		{makeEvent(EventStop, 3*time.Minute, bob, there, up(3*time.Minute)), Stopped},
		{makeEvent(EventStop, 3*time.Minute, bob, there, up(3*time.Minute)), Ended},
		{makeEvent(EventInterim, 2*time.Minute, bob, there, up(2*time.Minute)), Ended},
		{makeEvent(EventInterim, 4*time.Minute, up(4*time.Minute)), Refreshed},
	}, map[netip.Addr]string{home: "a"})
	play(t, []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventStart, 0, bob, there), Opened},
		{makeEvent(EventStop, time.Minute, up(time.Minute)), Stopped},
		{makeEvent(EventInterim, 2*time.Minute, bob, there, up(2*time.Minute)), Refreshed},
	}, map[netip.Addr]string{away: "a"})
}

// TestSharedIdentifierForgotten_SES10: the session that had the identifier
// first is over and forgotten. A late event of the second one, after its end,
// does not bring it back.
func TestSharedIdentifierForgotten_SES10(t *testing.T) {
	bob, there := as(me, "bob"), at1(away)
	w := newWorld()
	tell := func(ev Event, want Verdict) {
		t.Helper()
		if d := w.apply(t, ev); d.Verdict != want {
			t.Errorf("%+v: %v, want %v", ev, d.Verdict, want)
		}
	}
	tell(makeEvent(EventStart, 0), Opened)
	tell(makeEvent(EventStart, 0, bob, there), Opened)
	tell(makeEvent(EventStop, time.Minute, up(time.Minute)), Stopped)
	delete(w.sessions, me)
	tell(makeEvent(EventInterim, time.Hour, bob, there, up(time.Hour)), Adopted)
	if r := w.records[away]; r.SessionID != me || r.UserName != "bob" || !r.StartedAt.Equal(t0) {
		t.Errorf("record %+v", r)
	}
	tell(makeEvent(EventInterim, 2*time.Hour, bob, there, up(2*time.Hour)), Refreshed)
	tell(makeEvent(EventStop, 3*time.Hour, bob, there, up(3*time.Hour)), Stopped)
	tell(makeEvent(EventInterim, 2*time.Hour, bob, there, up(2*time.Hour)), Ended)
	tell(makeEvent(EventStart, 0, bob, there), Ended)
	if len(w.records) > 0 {
		t.Errorf("online %+v", w.records)
	}
}

// TestHeardThroughTwoClients_SES02: two proxies without a realm report one
// session; another NAS of the same name has another session.
func TestHeardThroughTwoClients_SES02(t *testing.T) {
	second := me
	second.Client = "bng2"
	through := as(second, "alice")
	play(t, []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventInterim, time.Minute, through, up(time.Minute)), Refreshed},
		{makeEvent(EventStop, 2*time.Minute, through, up(2*time.Minute)), Stopped},
	}, nil)
	other := func(ev *Event) { ev.NASAddress = netip.MustParseAddr("192.0.2.9") }
	play(t, []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventStart, time.Minute, through, other), ForeignHolder},
		{makeEvent(EventInterim, 2*time.Minute, up(2*time.Minute)), Refreshed},
	}, map[netip.Addr]string{home: "a"})
	play(t, []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventStart, time.Minute, as(second, "bob")), ForeignHolder},
		{makeEvent(EventStop, 2*time.Minute, as(second, "bob")), Noted},
		{makeEvent(EventInterim, 3*time.Minute, up(3*time.Minute)), Refreshed},
	}, map[netip.Addr]string{home: "a"})
}

// TestServices_SES21 sends accounting of a service beside the session: known by
// a mark of its vendor, or by an Acct-Multi-Session-Id that equals the
// session's Acct-Session-Id.
func TestServices_SES21(t *testing.T) {
	marked := func(ev *Event) { ev.SessionID.AcctSessionID, ev.Service = "s", true }
	within := func(ev *Event) { ev.SessionID.AcctSessionID, ev.MultiSessionID = "s", "a" }
	counts := func(ev *Event) { ev.CountServices = true }
	for name, service := range map[string]func(*Event){"marked": marked, "within": within} {
		t.Run(name, func(t *testing.T) {
			play(t, []turn{
				{makeEvent(EventStart, 0, inBundle), Opened},
				{makeEvent(EventStart, time.Minute, service), ServiceIgnored},
				{makeEvent(EventInterim, 2*time.Minute, service, up(time.Minute)), ServiceIgnored},
				{makeEvent(EventStop, 3*time.Minute, service, up(2*time.Minute)), ServiceIgnored},
				{makeEvent(EventInterim, 4*time.Minute, inBundle, up(4*time.Minute)), Refreshed},
			}, map[netip.Addr]string{home: "a"})
			play(t, []turn{
				{makeEvent(EventStart, 0), Opened},
				{makeEvent(EventStart, time.Minute, service, counts), Linked},
				{makeEvent(EventInterim, 2*time.Minute, service, counts, up(time.Minute)), Refreshed},
				{makeEvent(EventStop, 3*time.Minute, up(3*time.Minute)), Unlinked},
				{makeEvent(EventStop, 4*time.Minute, service, counts, up(3*time.Minute)), Stopped},
			}, nil)
			play(t, []turn{
				{makeEvent(EventStart, 0), Opened},
				{makeEvent(EventStart, time.Minute, service, counts), Linked},
				{makeEvent(EventStop, 3*time.Minute, service, counts, up(2*time.Minute)), Unlinked},
				{makeEvent(EventStop, 4*time.Minute, up(4*time.Minute)), Stopped},
			}, nil)
		})
	}
}

// TestServiceAfterItsSession_SES21: a late event of a service that has ended
// opens no session, although only the session could show that it is of a
// service.
func TestServiceAfterItsSession_SES21(t *testing.T) {
	within := func(ev *Event) { ev.SessionID.AcctSessionID, ev.MultiSessionID = "s", "a" }
	play(t, []turn{
		{makeEvent(EventStart, 0), Opened},
		{makeEvent(EventStart, time.Minute, within), ServiceIgnored},
		{makeEvent(EventStop, 3*time.Minute, within, up(2*time.Minute)), ServiceIgnored},
		{makeEvent(EventStop, 4*time.Minute, up(4*time.Minute)), Stopped},
		{makeEvent(EventInterim, 2*time.Minute, within, up(time.Minute)), Ended},
		{makeEvent(EventStart, time.Minute, within), Ended},
	}, nil)
}

// TestServiceFirst_SES21: a service that is reported before its session keeps
// the address for it. The service's own session state stays open without
// effect: its events are known as those of a service.
func TestServiceFirst_SES21(t *testing.T) {
	within := func(ev *Event) { ev.SessionID.AcctSessionID, ev.MultiSessionID = "s", "a" }
	w := newWorld()
	for i, x := range []turn{
		{makeEvent(EventStart, 0, within), Opened},
		{makeEvent(EventStart, time.Second), Adopted},
		{makeEvent(EventStop, time.Minute, within, up(time.Minute)), ServiceIgnored},
		{makeEvent(EventInterim, 2*time.Minute, up(2*time.Minute)), Refreshed},
	} {
		if d := w.apply(t, x.event); d.Verdict != x.want {
			t.Errorf("turn %d: %v, want %v", i, d.Verdict, x.want)
		}
	}
	if r := w.records[home]; r.SessionID != me || len(r.Links) != 0 || r.MultiSessionID != "" {
		t.Errorf("record %+v", r)
	}
}

// TestRestartPolicies_SES15 checks the verdict of an Accounting-On under each
// policy of its client.
func TestRestartPolicies_SES15(t *testing.T) {
	policy := func(p RestartPolicy) func(*Event) { return func(ev *Event) { ev.Restarts = p } }
	tests := []struct {
		policy  RestartPolicy
		verdict Verdict
		restart *Restart
	}{
		{RestartsBelieved, Restarted, &Restart{At: at(time.Hour), Stamp: at(time.Hour)}},
		{RestartsConfirmed, Restarted, &Restart{At: at(time.Hour), Confirm: true, Stamp: at(time.Hour)}},
		{RestartsIgnored, RestartIgnored, nil},
	}
	for _, tt := range tests {
		d := Decide(View{}, makeEvent(EventAccountingOn, time.Hour, policy(tt.policy)))
		if d.Verdict != tt.verdict || (d.Restart == nil) != (tt.restart == nil) || d.Restart != nil && *d.Restart != *tt.restart {
			t.Errorf("policy %d: %v, %+v", tt.policy, d.Verdict, d.Restart)
		}
	}
}

// TestStopBeforeItsStart_SES12: the arrival of a Stop proves nothing if the
// receiving daemon's clock is behind that of the daemon that took the Start; a
// counted delay does.
func TestStopBeforeItsStart_SES12(t *testing.T) {
	for delay, want := range map[time.Duration]Verdict{-1: Stopped, 0: Stopped, 5 * time.Minute: Stale} {
		var c Clock
		ev := makeEvent(EventStop, 0, unstamped)
		ev.Arrival, ev.Delay = at(-2*time.Minute), delay
		c.Place(&ev)
		if d := Decide(online(), ev); d.Verdict != want {
			t.Errorf("delay %v: %v, want %v", delay, d.Verdict, want)
		}
	}
}

// TestFirstStampIsShown_SES13: the stamp of an unknown clock is shown as the start,
// and decides nothing.
func TestFirstStampIsShown_SES13(t *testing.T) {
	var c Clock
	ev := makeEvent(EventStart, 0, as(you, "bob"))
	ev.Arrival, ev.Stamp, ev.Delay = at(time.Hour), at(-7*time.Hour), -1
	c.Place(&ev)
	d := Decide(held(rec(me, "alice", 0, 0)), ev)
	if d.Verdict != TookOver || !d.Put.StartedAt.Equal(at(-7*time.Hour)) || !d.Put.UpdatedAt.Equal(at(time.Hour)) || !d.Session.Start.Equal(at(time.Hour)) {
		t.Errorf("%v, record %+v, session %+v", d.Verdict, d.Put, d.Session)
	}
	next := makeEvent(EventInterim, 2*time.Hour, as(you, "bob"), up(time.Hour))
	if again := Decide(View{Session: *d.Session, Holder: d.Put}, next); !again.Put.StartedAt.Equal(at(-7 * time.Hour)) {
		t.Errorf("after an Interim started %v", again.Put.StartedAt)
	}
}
