package subscriber

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func inBundle(ev *Event) { ev.MultiSessionID = "m" }

func ofLink(id SessionID) func(*Event) {
	return func(ev *Event) { ev.SessionID = id }
}

// TestMultilink_SES20 walks a bundle of two links: it is one record, which ends
// with the last link, in either order.
func TestMultilink_SES20(t *testing.T) {
	for _, last := range []SessionID{me, you} {
		first := you
		if last == you {
			first = me
		}
		w := newWorld()
		steps := []struct {
			ev   Event
			want Verdict
		}{
			{makeEvent(EventStart, 0, inBundle), Opened},
			{makeEvent(EventStart, time.Minute, inBundle, ofLink(you)), Linked},
			{makeEvent(EventStart, time.Minute, inBundle, ofLink(you)), Refreshed},
			{makeEvent(EventInterim, 2*time.Minute, inBundle, ofLink(first)), Refreshed},
			{makeEvent(EventStop, 3*time.Minute, inBundle, ofLink(first)), Unlinked},
			{makeEvent(EventStop, 3*time.Minute, inBundle, ofLink(first)), Ended},
			{makeEvent(EventInterim, 2*time.Minute, inBundle, ofLink(first)), Ended},
			{makeEvent(EventInterim, 4*time.Minute, inBundle, ofLink(last)), Refreshed},
			{makeEvent(EventStop, 5*time.Minute, inBundle, ofLink(last)), Stopped},
		}
		for i, s := range steps {
			if d := w.apply(t, s.ev); d.Verdict != s.want {
				t.Errorf("last %s, step %d: %v, want %v", last.AcctSessionID, i, d.Verdict, s.want)
			}
			if r, up := w.records[home]; up && r.SessionID != me {
				t.Errorf("last %s, step %d: the record became %v's", last.AcctSessionID, i, r.SessionID)
			}
		}
		if len(w.records) != 0 {
			t.Errorf("last %s: left %+v", last.AcctSessionID, w.records)
		}
	}
}

// TestOtherBundle_SES20: another NAS's bundle takes the address over, but not
// one of another client.
func TestOtherBundle_SES20(t *testing.T) {
	for id, want := range map[SessionID]Verdict{
		{Client: "bng1", NAS: "nas2", AcctSessionID: "b"}: TookOver,
		{Client: "bng2", NAS: "nas1", AcctSessionID: "b"}: ForeignHolder,
	} {
		w := newWorld()
		w.apply(t, makeEvent(EventStart, 0, inBundle))
		if d := w.apply(t, makeEvent(EventStart, time.Minute, inBundle, ofLink(id))); d.Verdict != want {
			t.Errorf("bundle of %v: %v, want %v", id, d.Verdict, want)
		}
	}
}

// TestService_SES21: the accounting of a service, also under the identifier of
// the session around it, changes nothing.
func TestService_SES21(t *testing.T) {
	for kind := EventStart; kind <= EventStop; kind++ {
		ev := makeEvent(kind, time.Hour, func(ev *Event) { ev.Service, ev.ParentSessionID = true, "a" })
		if d := Decide(online(), ev); d.Writes() || d.Verdict != ServiceIgnored {
			t.Errorf("kind %d: %+v", kind, d)
		}
	}
}

// TestDualStack_SES23: the Stop of the host session for IPv6 leaves that for IPv4.
func TestDualStack_SES23(t *testing.T) {
	v := View{Scope: NoAddress, Session: SessionState{}}
	if d := Decide(v, makeEvent(EventStop, time.Hour, noAddress, ofLink(you))); len(d.Delete) > 0 || d.Put != nil {
		t.Errorf("%+v", d)
	}
}

func TestIPv6IsKept_ACCT29(t *testing.T) {
	told := func(ev *Event) {
		ev.FramedIPv6Addresses = []netip.Addr{netip.MustParseAddr("2001:db8::1")}
		ev.FramedIPv6Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}
		ev.DelegatedPrefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/56")}
	}
	w := newWorld()
	w.apply(t, makeEvent(EventStart, 0, told))
	w.apply(t, makeEvent(EventInterim, time.Minute))
	r := w.records[home]
	if len(r.FramedIPv6Addresses) != 1 || len(r.FramedIPv6Prefixes) != 1 || len(r.DelegatedPrefixes) != 1 {
		t.Errorf("%+v", r)
	}
}

// TestLeftBeforeTakeover_SES09: a session whose old address another's Start took is
// not over if its last event there was older than one at its new address.
func TestLeftBeforeTakeover_SES09(t *testing.T) {
	w := newWorld()
	w.apply(t, makeEvent(EventStart, 0))
	w.apply(t, makeEvent(EventStart, time.Hour, ofLink(you), asBob))
	if d := w.apply(t, makeEvent(EventInterim, time.Minute)); d.Verdict != Ended {
		t.Errorf("old address: %v", d.Verdict)
	}
	if d := w.apply(t, makeEvent(EventInterim, time.Minute, elsewhere)); d.Verdict != Opened {
		t.Errorf("new address: %v", d.Verdict)
	}
	if r := w.records[away]; r.SessionID != me || !slices.Equal(r.Links, nil) {
		t.Errorf("%+v", r)
	}
}

// TestLeg_ACCT28: a session that turns out to have more addresses keeps its
// record on the first.
func TestLeg_ACCT28(t *testing.T) {
	ev := makeEvent(EventInterim, time.Hour)
	ev.Leg = home
	v := online()
	v.Session = SessionState{}
	if d := Decide(v, ev); d.Verdict != Adopted || len(d.Delete) > 0 || d.Put.Leg != home {
		t.Errorf("%+v", d)
	}
}

// TestRestoredMultilink_SES20: a record of a multilink that was written back
// goes to the next session, whole, if that is none of its links.
func TestRestoredMultilink_SES20(t *testing.T) {
	lost := unconfirmed(rec(you, "alice", 0, 0))
	lost.MultiSessionID, lost.Links = "m", []string{"b", "c"}
	d := Decide(held(lost), makeEvent(EventInterim, time.Hour))
	if d.Verdict != Adopted || !d.Put.belongsTo(me) || d.Put.MultiSessionID != "" {
		t.Fatalf("%v, record %+v", d.Verdict, d.Put)
	}
	if d := Decide(View{Session: *d.Session, Holder: d.Put}, makeEvent(EventStop, 2*time.Hour)); d.Verdict != Stopped {
		t.Errorf("its Stop: %v", d.Verdict)
	}
	d = Decide(held(lost), makeEvent(EventInterim, time.Hour, ofLink(SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: "c"}), inBundle))
	if d.Verdict != Refreshed || len(d.Put.Links) != 2 {
		t.Errorf("a link of it: %v, record %+v", d.Verdict, d.Put)
	}
}

// TestMultilinkWithoutItsFirstLink_SES20: the record keeps the first link's
// identifier. Its end leaves no tombstone under that identifier, which may be
// another session's by then.
func TestMultilinkWithoutItsFirstLink_SES20(t *testing.T) {
	r := rec(me, "alice", 0, 0)
	r.MultiSessionID, r.Links = "m", []string{"b"}
	if e := NewEnding(*r, ReasonSuperseded, at(time.Hour)); e.Tombstone != nil {
		t.Errorf("tombstone %+v", e.Tombstone)
	}
	d := DecidePut(r, Record{Key: r.Key, UserName: "alice"})
	if !d.Put.belongsTo(SessionID{Client: "bng1", NAS: "nas1", AcctSessionID: "b"}) {
		t.Errorf("put by hand: %+v", d.Put)
	}
}

// TestMoveOntoItsRecord_SES09: a session that moves to an address where a record
// waits for it updates that record, so that no Created is announced.
func TestMoveOntoItsRecord_SES09(t *testing.T) {
	waits := rec(SessionID{}, "alice", 0, 0)
	waits.Inside = away
	d := Decide(online(movedTo(waits)), makeEvent(EventInterim, time.Hour, elsewhere))
	if d.Verdict != Moved || d.Created || len(d.Delete) != 1 || d.Put.Inside != away {
		t.Errorf("%v, created %v, deleted %v, put %+v", d.Verdict, d.Created, d.Delete, d.Put)
	}
}
