package subscriber

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	t0   = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	home = netip.MustParseAddr("100.64.0.1")
	away = netip.MustParseAddr("100.64.0.2")
	me   = SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: "a"}
	you  = SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: "b"}
)

func at(d time.Duration) time.Time { return t0.Add(d) }

func makeEvent(kind EventKind, after time.Duration, change ...func(*Event)) Event {
	ev := Event{Kind: kind, SessionID: me, UserName: "alice", Inside: home, At: at(after), Stamp: at(after), SessionTime: -1}
	for _, f := range change {
		f(&ev)
	}
	return ev
}

func noAddress(ev *Event)             { ev.Inside = netip.Addr{} }
func elsewhere(ev *Event)             { ev.Inside = away }
func asBob(ev *Event)                 { ev.UserName = "bob" }
func unstamped(ev *Event)             { ev.Stamp = time.Time{} }
func anyUser(ev *Event)               { ev.UserName = "" }
func up(d time.Duration) func(*Event) { return func(ev *Event) { ev.SessionTime = d } }

func undelayed(ev *Event) { ev.Latest, ev.Delay, ev.Told = ev.At, -1, false }

// late delays the event's arrival by a time, by the known clock of its NAS.
func late(by time.Duration) func(*Event) {
	return func(ev *Event) {
		ev.Latest, ev.Told = ev.At, true
		ev.At, ev.Stamp = ev.At.Add(-by), ev.At.Add(-by)
	}
}

// rec is a record at home that began at a time and was refreshed at another.
func rec(id SessionID, user string, began, refreshed time.Duration) *Record {
	return &Record{
		Key: Key{"g", home}, SessionID: id, UserName: user,
		StartedAt: at(began), UpdatedAt: at(refreshed), Version: "5-0",
	}
}

func openSince(began time.Duration) SessionState {
	return SessionState{Phase: Open, Inside: home, Start: at(began), Exact: true, Stamp: at(began), UserName: "alice"}
}

func closedAt(end time.Duration, why Reason) SessionState {
	return SessionState{Phase: Closed, Inside: home, Start: t0, Stamp: t0, End: at(end), Exact: true, Reason: why, UserName: "alice"}
}

// online is the view of alice's session, open at home since t0, last heard of
// at +10 m.
func online(change ...func(*View)) View {
	v := View{Group: "g", Session: openSince(0), Holder: rec(me, "alice", 0, 10*time.Minute)}
	for _, f := range change {
		f(&v)
	}
	return v
}

func inGroup(s Scope) func(*View) {
	return func(v *View) { v.Scope, v.Current, v.Holder = s, v.Holder, nil }
}

func restartAt(after time.Duration, id string) func(*View) {
	return func(v *View) { v.Restart = Restart{At: at(after), ID: id} }
}

// after puts an earlier session of the same identifier, begun at a time, into
// the view.
func after(before time.Duration) func(*View) {
	return func(v *View) { v.Session.Before = at(before) }
}

func heard(last time.Duration) func(*View) {
	return func(v *View) { v.Holder.UpdatedAt = at(last) }
}

func began(start time.Duration) func(*View) {
	return func(v *View) {
		v.Session.Start, v.Holder.StartedAt, v.Holder.UpdatedAt = at(start), at(start), at(start)
	}
}

// foundByInterim makes the session known from an Interim only.
func foundByInterim(v *View) { v.Session.Exact, v.Session.Stamp = false, time.Time{} }

// written sets the time at which the session's record was last written.
func written(last time.Duration) func(*View) {
	return func(v *View) { v.Holder.Version = Version{millis: uint64(at(last).UnixMilli())}.String() }
}

func held(r *Record) View           { return View{Group: "g", Holder: r} }
func known(s SessionState) View     { return View{Group: "g", Session: s} }
func unconfirmed(r *Record) *Record { r.Unconfirmed = true; return r }

// movedTo is the view of an event with another address than home.
func movedTo(holder *Record) func(*View) {
	return func(v *View) { v.Current, v.Holder = v.Holder, holder }
}

func atAway(r *Record) *Record { r.Inside = away; return r }

// writtenBack is a record at home of an unknown subscriber, as of t0.
func writtenBack() *Record {
	return &Record{Key: Key{"g", home}, Unconfirmed: true, Version: Version{millis: uint64(t0.UnixMilli())}.String()}
}

func TestDecide(t *testing.T) {
	const hour = time.Hour
	tests := []struct {
		name    string
		view    View
		event   Event
		verdict Verdict
		deleted []Reason
		put     bool
		phase   Phase // of the session state that is written; Unknown for none
	}{
		{"Start of a new session", View{}, makeEvent(EventStart, 0), Opened, nil, true, Open},
		{"SES-02 Start again", online(), makeEvent(EventStart, 0), Refreshed, nil, true, Open},
		{"ACCT-16 Start again, time off by the delay", online(), makeEvent(EventStart, 2*time.Second), Refreshed, nil, true, Open},
		{"SES-03 Interim of an unknown session", View{}, makeEvent(EventInterim, 0, up(hour)), Opened, nil, true, Open},
		{"SES-04 Stop of an unknown session on a live address", held(rec(you, "bob", 0, 0)), makeEvent(EventStop, hour), Noted, nil, false, Closed},
		{"SES-05 Interim without an address", online(inGroup(NoAddress)), makeEvent(EventInterim, hour, noAddress), Refreshed, nil, true, Open},
		{"SES-05 Start without an address of an unknown session", View{Scope: NoAddress}, makeEvent(EventStart, 0, noAddress), NotHere, nil, false, Unknown},
		{"SES-06 late Stop of the older session", View{Session: closedAt(hour, ReasonSuperseded), Holder: rec(you, "bob", hour, hour)}, makeEvent(EventStop, 2*hour), Ended, nil, false, Unknown},
		{"SES-07 Start on a held address", held(rec(you, "bob", 0, 0)), makeEvent(EventStart, hour), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-07 Start again of an older session, whose record is gone", View{Session: openSince(0), Holder: rec(SessionID{Client: "bng1", NAS: "nas2", AcctSessionID: "b"}, "bob", hour, hour)}, makeEvent(EventStart, 2*hour, unstamped), Held, nil, false, Unknown},
		{"SES-07 same time: the later arrival wins", held(rec(you, "bob", 0, 0)), makeEvent(EventStart, 0), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-07 same second: the later arrival wins", held(rec(you, "bob", 900*time.Millisecond, 900*time.Millisecond)), makeEvent(EventStart, 0), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-07 older Start on a held address", held(rec(you, "bob", hour, hour)), makeEvent(EventStart, 0), Held, nil, false, Unknown},
		{"SES-09 Interim with another address", online(movedTo(nil)), makeEvent(EventInterim, hour, elsewhere), Moved, []Reason{ReasonSuperseded}, true, Open},
		{"SES-09 onto an older session's address", online(movedTo(atAway(rec(you, "bob", -hour, 0)))), makeEvent(EventInterim, hour, elsewhere), TookOver, []Reason{ReasonSuperseded, ReasonSuperseded}, true, Open},
		{"SES-14 onto a newer session's address", online(movedTo(atAway(rec(you, "bob", hour, hour)))), makeEvent(EventInterim, 2*hour, elsewhere), Held, nil, false, Unknown},
		{"I4 late Interim with the old address", online(movedTo(nil)), makeEvent(EventInterim, time.Minute, elsewhere), Stale, nil, false, Unknown},
		{"I4 late Interim, same address", online(), makeEvent(EventInterim, time.Minute), Refreshed, nil, true, Open},
		{"SES-10 Interim after Stop", known(closedAt(hour, ReasonStop)), makeEvent(EventInterim, hour+time.Minute, up(hour)), Ended, nil, false, Unknown},
		{"SES-11 Start after its Stop", known(closedAt(hour, ReasonStop)), makeEvent(EventStart, 0), Ended, nil, false, Unknown},
		{"SES-11 older Start after a Stop", known(closedAt(hour, ReasonStop)), makeEvent(EventStart, 10*time.Minute), Ended, nil, false, Unknown},
		{"SES-12 newer Start after a Stop", known(closedAt(hour, ReasonStop)), makeEvent(EventStart, 2*hour), Opened, nil, true, Open},
		{"SES-12 another user's Start after a Stop", known(closedAt(hour, ReasonStop)), makeEvent(EventStart, time.Minute, asBob), Opened, nil, true, Open},
		{"SES-12 newer Start of an open session", online(), makeEvent(EventStart, hour), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-12 another user's Start of an open session", online(), makeEvent(EventStart, time.Second, asBob), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-02 Start again, nothing told of its time", online(), makeEvent(EventStart, hour, unstamped), Refreshed, nil, true, Open},
		{"SES-02 Start after its Interim, by a clock of which nothing is known", online(foundByInterim), makeEvent(EventStart, hour, undelayed), Refreshed, nil, true, Open},
		{"SES-12 newer Start of a session found by its Interim", online(foundByInterim), makeEvent(EventStart, hour), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-02 Start again, from before its Interim, by a clock that was set", online(foundByInterim), makeEvent(EventStart, 5*time.Minute), Refreshed, nil, true, Open},
		{"SES-12 newer Start of a session whose record was written before it", online(foundByInterim, written(30*time.Minute)), makeEvent(EventStart, hour), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-02 Start again after its record was written back, by a clock that was set", online(foundByInterim, written(2*hour)), makeEvent(EventStart, hour), Refreshed, nil, true, Open},
		{"SES-02 Start again, after the session moved", online(movedTo(nil)), makeEvent(EventStart, 0, elsewhere), Stale, nil, false, Unknown},
		{"SES-02 Start again with the address from before the move", online(movedTo(nil)), makeEvent(EventStart, time.Minute, elsewhere, unstamped, undelayed), Stale, nil, false, Unknown},
		{"Start again after the Stop, nothing told of its time", known(closedAt(time.Minute, ReasonStop)), makeEvent(EventStart, 2*time.Minute, unstamped, undelayed), Ended, nil, false, Unknown},
		{"SES-12 older Start of an open session", online(), makeEvent(EventStart, -hour), Stale, nil, false, Unknown},
		{"SES-12 Stop before the start", online(), makeEvent(EventStop, -hour), Stale, nil, false, Unknown},
		{"SES-12 Stop of an earlier session by its time", online(after(-2 * hour)), makeEvent(EventStop, hour, up(3*hour)), Stale, nil, false, Unknown},
		{"SES-12 late Interim of an earlier session", online(after(-2 * hour)), makeEvent(EventInterim, 30*time.Minute, up(2*hour)), Stale, nil, false, Unknown},
		{"Interim of an earlier session that goes on", online(after(-2 * hour)), makeEvent(EventInterim, hour, up(3*hour)), Refreshed, nil, true, Open},
		{"SES-12 Stop of this session and not the earlier one", online(after(-2 * hour)), makeEvent(EventStop, hour, up(hour)), Stopped, []Reason{ReasonStop}, false, Closed},
		{"SES-12 Stop without a count, by the clock of an earlier session", online(after(-2 * hour)), makeEvent(EventStop, time.Hour, late(2*hour)), Stale, nil, false, Unknown},
		{"a count too long, and no earlier session", online(), makeEvent(EventStop, hour, up(3*hour)), Stopped, []Reason{ReasonStop}, false, Closed},
		{"SES-12 Interim of a newer session whose Start and Stop were lost", known(closedAt(hour, ReasonStop)), makeEvent(EventInterim, 3*hour, up(hour)), Opened, nil, true, Open},
		{"Stop", online(), makeEvent(EventStop, hour, up(hour)), Stopped, []Reason{ReasonStop}, false, Closed},
		{"Stop without an address", online(inGroup(NoAddress)), makeEvent(EventStop, hour, noAddress), Stopped, []Reason{ReasonStop}, false, Closed},
		{"Stop of a session whose record is gone", known(openSince(0)), makeEvent(EventStop, hour), Noted, nil, false, Closed},
		{"Interim of a session whose record is gone", known(openSince(0)), makeEvent(EventInterim, hour), Opened, nil, true, Open},
		{"Interim of a session whose state is gone", held(rec(me, "alice", 0, 0)), makeEvent(EventInterim, hour), Refreshed, nil, true, Open},
		{"Interim after an admin's deletion", known(closedAt(hour, ReasonAdmin)), makeEvent(EventInterim, 2*hour), Opened, nil, true, Open},
		{"late Interim after an admin's deletion", known(closedAt(hour, ReasonAdmin)), makeEvent(EventInterim, time.Minute), Ended, nil, false, Unknown},
		{"Start again after an admin's deletion", known(closedAt(hour, ReasonAdmin)), makeEvent(EventStart, 0), Ended, nil, false, Unknown},
		{"Stop after an admin's deletion", known(closedAt(hour, ReasonAdmin)), makeEvent(EventStop, 2*hour), Noted, nil, false, Closed},
		{"SES-18 Interim after expiry", known(closedAt(hour, ReasonExpired)), makeEvent(EventInterim, 2*hour), Opened, nil, true, Open},
		{"SES-15 Start before the restart", View{Restart: Restart{At: at(hour), ID: "9-0"}}, makeEvent(EventStart, 0), Outdated, nil, false, Unknown},
		{"SES-15 Start in the second of the restart", View{Restart: Restart{At: at(hour), ID: "9-0"}}, makeEvent(EventStart, hour), Opened, nil, true, Open},
		{"SES-15 Interim of a session before the restart", online(restartAt(hour, "9-0")), makeEvent(EventInterim, 50*time.Minute), Outdated, nil, false, Unknown},
		{"SES-15 session that outlived the restart", online(restartAt(hour, "9-0")), makeEvent(EventInterim, 2*hour), Refreshed, nil, true, Open},
		{"SES-15 session that outlived the restart and was swept", known(closedAt(hour, ReasonNASRestart)), makeEvent(EventInterim, 2*hour, up(2*hour)), Opened, nil, true, Open},
		{"SES-15 Interim from before the restart of a session that was swept", known(closedAt(hour, ReasonNASRestart)), makeEvent(EventInterim, 50*time.Minute), Ended, nil, false, Unknown},
		{"SES-15 Start with an old identifier after the restart", online(restartAt(hour, "9-0"), heard(0)), makeEvent(EventStart, 2*hour, unstamped), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-15 Start again, from before the restart", online(restartAt(hour, "9-0"), heard(0)), makeEvent(EventStart, 0), Outdated, nil, false, Unknown},
		{"SES-15 same second, recorded before", online(restartAt(11*time.Minute, "9-0"), heard(0), began(11*time.Minute)), makeEvent(EventInterim, 11*time.Minute), Outdated, nil, false, Unknown},
		{"SES-15 same second, recorded after", online(restartAt(0, "4-0")), makeEvent(EventInterim, hour), Refreshed, nil, true, Open},
		{"SES-15 reckoned start just before the restart", View{Restart: Restart{At: at(0), ID: "9-0"}}, makeEvent(EventInterim, hour, up(hour+time.Second)), Opened, nil, true, Open},
		{"SES-15 Interim of an unknown session before the restart", View{Restart: Restart{At: at(0), ID: "9-0"}}, makeEvent(EventInterim, time.Second, up(2*hour)), Outdated, nil, false, Unknown},
		{"SES-15 Interim of an unknown session that outlived the restart", View{Restart: Restart{At: at(0), ID: "9-0"}}, makeEvent(EventInterim, hour, up(2*hour)), Opened, nil, true, Open},
		{"SES-15 Stop of a session before the restart", online(restartAt(hour, "9-0")), makeEvent(EventStop, 2*hour), Stopped, []Reason{ReasonStop}, false, Closed},
		{"by hand, same user", held(rec(SessionID{}, "alice", 0, 0)), makeEvent(EventStart, hour), Adopted, nil, true, Open},
		{"by hand, another user", held(rec(SessionID{}, "bob", 0, 0)), makeEvent(EventStart, hour), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"SES-07 NAT-30 written back, session started later", held(writtenBack()), makeEvent(EventStart, hour), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"written back, session started before", held(writtenBack()), makeEvent(EventStart, -hour), Adopted, nil, true, Open},
		{"SES-20 written back, another link", held(writtenBack()), makeEvent(EventStart, hour, func(ev *Event) { ev.MultiSessionID = "m" }), Adopted, nil, true, Open},
		{"written back, Interim", held(writtenBack()), makeEvent(EventInterim, hour), Adopted, nil, true, Open},
		{"unconfirmed, same user", held(unconfirmed(rec(you, "alice", hour, hour))), makeEvent(EventInterim, 0), Adopted, nil, true, Open},
		{"unconfirmed, user not told", held(unconfirmed(rec(you, "alice", hour, hour))), makeEvent(EventInterim, 0, anyUser), Adopted, nil, true, Open},
		{"unconfirmed, another user", held(unconfirmed(rec(you, "bob", 0, 0))), makeEvent(EventInterim, hour), TookOver, []Reason{ReasonSuperseded}, true, Open},
		{"unconfirmed, Stop of its session", held(unconfirmed(rec(SessionID{AcctSessionID: "a"}, "alice", 0, 0))), makeEvent(EventStop, hour), Stopped, []Reason{ReasonStop}, false, Closed},
		{"unconfirmed, Stop of another session of the user", held(unconfirmed(rec(SessionID{AcctSessionID: "b"}, "alice", 0, 0))), makeEvent(EventStop, hour), Noted, nil, false, Closed},
		{"session moved to another group", online(inGroup(Elsewhere)), makeEvent(EventInterim, hour, noAddress), Left, []Reason{ReasonSuperseded}, false, Closed},
		{"older event from another group", online(inGroup(Elsewhere)), makeEvent(EventInterim, time.Minute, noAddress), Stale, nil, false, Unknown},
		{"Stop from another group", online(inGroup(Elsewhere)), makeEvent(EventStop, hour, noAddress), Stopped, []Reason{ReasonStop}, false, Closed},
		{"SES-09 to an address of no group", online(inGroup(Elsewhere)), makeEvent(EventInterim, hour, func(ev *Event) { ev.Inside = netip.MustParseAddr("203.0.113.1") }), Left, []Reason{ReasonSuperseded}, false, Closed},
		{"back from another group", known(closedAt(hour, ReasonNone)), makeEvent(EventInterim, 2*hour), Opened, nil, true, Open},
		{"unknown here, known elsewhere", View{Scope: Elsewhere}, makeEvent(EventStop, hour, noAddress), NotHere, nil, false, Unknown},
		{"ACCT-24 Start without an address", View{Scope: Recorded}, makeEvent(EventStart, 0, noAddress), Noted, nil, false, Open},
		{"ACCT-24 Stop without an address", View{Scope: Recorded, Session: SessionState{Phase: Open, Start: t0}}, makeEvent(EventStop, hour, noAddress), Noted, nil, false, Closed},
		{"Accounting-On", View{}, makeEvent(EventAccountingOn, hour), Restarted, nil, false, Unknown},
		{"Accounting-On again", View{Restart: Restart{At: at(hour), ID: "1-0"}}, makeEvent(EventAccountingOn, hour+2*time.Second), RestartRepeated, nil, false, Unknown},
		{"Accounting-On after Off", View{Restart: Restart{At: at(0), ID: "1-0"}}, makeEvent(EventAccountingOn, time.Minute), Restarted, nil, false, Unknown},
		{"older Accounting-On", View{Restart: Restart{At: at(hour), ID: "1-0"}}, makeEvent(EventAccountingOn, 0), RestartRepeated, nil, false, Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Decide(tt.view, tt.event)
			if d.Verdict != tt.verdict {
				t.Errorf("verdict %v, want %v", d.Verdict, tt.verdict)
			}
			if got := reasons(d.Delete); !slices.Equal(got, tt.deleted) {
				t.Errorf("deleted %v, want %v", got, tt.deleted)
			}
			if (d.Put != nil) != tt.put {
				t.Errorf("put %+v, want %v", d.Put, tt.put)
			}
			if got := phase(d.Session); got != tt.phase {
				t.Errorf("session %+v, want phase %v", d.Session, tt.phase)
			}
		})
	}
}

func reasons(list []Ending) (got []Reason) {
	for _, e := range list {
		got = append(got, e.Reason)
	}
	return got
}

func phase(s *SessionState) Phase {
	if s == nil {
		return Unknown
	}
	return s.Phase
}

// TestSupersededIsRemembered_SES07 checks that the session that loses its
// address gets a tombstone, and the new one its own record.
func TestSupersededIsRemembered_SES07(t *testing.T) {
	d := Decide(held(rec(you, "bob", 0, 0)), makeEvent(EventStart, time.Hour))
	tomb := d.Delete[0].Tombstone
	if tomb == nil || tomb.Reason != ReasonSuperseded || !tomb.End.Equal(at(time.Hour)) || !tomb.Heard.Equal(t0) || tomb.UserName != "bob" {
		t.Errorf("tombstone %+v", tomb)
	}
	if !d.Created || d.Put.UserName != "alice" || !d.Put.StartedAt.Equal(at(time.Hour)) || d.Put.Group != "g" {
		t.Errorf("record %+v, created %v", d.Put, d.Created)
	}
}

func TestInterimReckonsStart_SES03(t *testing.T) {
	d := Decide(View{}, makeEvent(EventInterim, time.Hour, up(time.Hour)))
	if !d.Put.StartedAt.Equal(t0) || d.Session.Exact {
		t.Errorf("started %v, exact %v", d.Put.StartedAt, d.Session.Exact)
	}
}

// TestOlderEventKeepsNewerCounters_I4 checks that a late Interim refreshes the
// record, and lowers no counter.
func TestOlderEventKeepsNewerCounters_I4(t *testing.T) {
	v := online()
	v.Holder.InputOctets = 100
	d := Decide(v, makeEvent(EventInterim, time.Minute, func(ev *Event) { ev.InputOctets = 7 }))
	if d.Put.InputOctets != 100 || !d.Put.UpdatedAt.Equal(at(10*time.Minute)) {
		t.Errorf("record %+v", d.Put)
	}
}

// TestRewrittenUserName checks that a NAS that changes the User-Name of a
// running session does not end the subscriber's NAT sessions.
func TestRewrittenUserName(t *testing.T) {
	d := Decide(online(), makeEvent(EventInterim, time.Hour, up(time.Hour), asBob))
	if d.Verdict != Refreshed || d.Put.UserName != "alice" {
		t.Errorf("verdict %v, user %q", d.Verdict, d.Put.UserName)
	}
}

func TestStopTellsFinalCounters(t *testing.T) {
	d := Decide(online(), makeEvent(EventStop, time.Hour, func(ev *Event) { ev.OutputOctets = 9 }))
	if r := d.Delete[0].Record; r.OutputOctets != 9 || r.Version != "5-0" {
		t.Errorf("record %+v", r)
	}
}

func TestDecidePut(t *testing.T) {
	byHand := Record{Key: Key{"g", home}, UserName: "alice", StartedAt: at(time.Hour)}
	if d := DecidePut(nil, byHand); !d.Created || d.Put == nil {
		t.Errorf("on a free address: %+v", d)
	}
	own := rec(me, "alice", 0, 0)
	own.Class, own.MoreClasses = "gold", []string{"v6"}
	d := DecidePut(own, byHand)
	if d.Created || d.Put.SessionID != me || !d.Put.StartedAt.Equal(t0) || d.Put.Class != "gold" || len(d.Put.MoreClasses) != 1 {
		t.Errorf("on the subscriber's own record: %+v", d.Put)
	}
	d = DecidePut(rec(you, "bob", 0, 0), byHand)
	if !d.Created || len(d.Delete) != 1 || d.Delete[0].Reason != ReasonSuperseded {
		t.Errorf("on another's record: %+v", d)
	}
}
