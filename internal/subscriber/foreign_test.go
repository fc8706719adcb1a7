package subscriber

import (
	"testing"
	"time"
)

// TestForeignHolder_SES16: no event of another client ends or changes the
// holder's record, even if their attributes are equal, unless the holder's
// removal waits for a decision.
func TestForeignHolder_SES16(t *testing.T) {
	holder := *rec(me, "alice", 0, time.Minute)
	holder.MultiSessionID = "m"
	written := holder
	written.Unconfirmed = true
	other := SessionID{Client: "bng2", NAS: "nas1", AcctSessionID: "a"}
	for name, r := range map[string]Record{"online": holder, "written back": written} {
		for kind := EventStart; kind <= EventStop; kind++ {
			for _, user := range []string{"", "alice", "bob"} {
				for _, more := range []func(*Event){
					func(*Event) {}, inBundle, up(time.Hour), func(ev *Event) { ev.Service, ev.CountServices = true, true },
					func(ev *Event) { ev.At, ev.Latest = t0.Add(-time.Hour), t0.Add(-time.Hour) },
				} {
					ev := makeEvent(kind, 2*time.Minute, as(other, user), more)
					d := Decide(View{Group: "g", Holder: &r, HolderApart: true}, ev)
					if len(d.Delete) > 0 || d.Put != nil {
						t.Errorf("%s: %v of %q: %+v", name, kind, user, d)
					}
				}
			}
		}
	}
	held := holder
	held.RemovalHeld = ReasonExpired
	d := Decide(View{Group: "g", Holder: &held, HolderApart: true}, makeEvent(EventInterim, 2*time.Minute, as(other, "bob")))
	if d.Verdict != TookOver || len(d.Delete) != 1 {
		t.Errorf("of a held removal: %+v", d)
	}
}

// TestBoundClient_SES16: an event about an address that its client may not
// report opens and moves nothing, and is not remembered. A session that is
// online there already goes on, and ends.
func TestBoundClient_SES16(t *testing.T) {
	out := func(ev *Event) { ev.ForeignInside = true }
	for name, tt := range map[string]struct {
		view View
		ev   Event
		want Verdict
	}{
		"Start":                        {View{Group: "g"}, makeEvent(EventStart, 0, out), ForeignAddress},
		"Interim":                      {View{Group: "g"}, makeEvent(EventInterim, 0, out), ForeignAddress},
		"Stop":                         {View{Group: "g"}, makeEvent(EventStop, 0, out), ForeignAddress},
		"Interim after the end":        {known(closedAt(time.Minute, ReasonAdmin)), makeEvent(EventInterim, time.Hour, out), ForeignAddress},
		"Interim of who is online":     {online(), makeEvent(EventInterim, time.Minute, out), Refreshed},
		"Start again":                  {online(), makeEvent(EventStart, 0, out), Refreshed},
		"Stop of who is online":        {online(), makeEvent(EventStop, time.Minute, out), Stopped},
		"Start of another user":        {online(), makeEvent(EventStart, time.Minute, out, asBob), ForeignAddress},
		"Start of another session":     {online(func(v *View) { v.Session = SessionState{} }), makeEvent(EventStart, time.Minute, out, as(you, "alice")), ForeignAddress},
		"move from within":             {online(movedTo(nil)), makeEvent(EventInterim, 20*time.Minute, elsewhere, out), ForeignAddress},
		"move from another group":      {online(inGroup(Elsewhere)), makeEvent(EventInterim, time.Minute, out), ForeignAddress},
		"Stop in another group":        {online(inGroup(Elsewhere)), makeEvent(EventStop, time.Minute, out), Stopped},
		"in a group that knows none":   {View{Group: "g", Scope: Elsewhere}, makeEvent(EventStart, 0, out), NotHere},
		"Interim of one at no address": {View{Group: "g", Session: SessionState{Phase: Open, Start: t0}}, makeEvent(EventInterim, time.Minute, out), ForeignAddress},
	} {
		d := Decide(tt.view, tt.ev)
		if d.Verdict != tt.want {
			t.Errorf("%s: %v, want %v", name, d.Verdict, tt.want)
		}
		if d.Verdict == ForeignAddress && d.Writes() {
			t.Errorf("%s: %+v", name, d)
		}
	}
	holder := rec(me, "alice", 0, time.Minute)
	ev := makeEvent(EventInterim, time.Minute, as(SessionID{Client: "bng2", NAS: "nas1", AcctSessionID: "a"}, "alice"), out)
	if id := Identify(View{Group: "g", Holder: holder}, &ev); id != ev.SessionID {
		t.Errorf("beyond its bounds a client speaks for %v", id)
	}
}
