package lifecycle

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestNext is the life cycle as a table: every phase with every toggle.
func TestNext(t *testing.T) {
	const (
		ended = iota // there is no record
		own          // a record is in force, and the binding is its own
		other        // a record is in force, and the binding is another session's
	)
	tests := []struct {
		phase    Phase
		who      int
		removal  bool
		sessions int
		want     action
	}{
		{Idle, ended, true, 0, stay},
		{Idle, own, true, 0, allocate},
		{Idle, own, false, 0, allocate},

		{Saved, own, true, 0, program},
		{Saved, own, true, 3, flush}, // DEL-06
		{Saved, own, false, 3, flush},
		{Saved, ended, true, 0, closeGate},
		{Saved, ended, false, 0, closeGate}, // never opened: nothing to drain
		{Saved, other, false, 0, closeGate},

		{Open, own, true, 9, stay},
		{Open, own, false, 9, stay},
		{Open, ended, true, 9, closeGate}, // DEL-01
		{Open, ended, false, 9, drain},    // DEL-11
		{Open, other, true, 9, closeGate}, // SES-07
		{Open, other, false, 9, closeGate},

		{Draining, ended, false, 2, askIdle},
		{Draining, ended, false, 0, closeGate},
		{Draining, ended, true, 2, closeGate},  // toggle switched on
		{Draining, other, false, 2, closeGate}, // the next holder inherits nothing

		{Cut, ended, true, 9, reap},
		{Cut, own, false, 0, reap},
	}
	for _, tt := range tests {
		name := fmt.Sprintf("phase=%d/who=%d/removal=%t/sessions=%d", tt.phase, tt.who, tt.removal, tt.sessions)
		t.Run(name, func(t *testing.T) {
			f := facts{
				phase: tt.phase, online: tt.who != ended, own: tt.who != other,
				removal: tt.removal, sessions: tt.sessions, empty: tt.sessions == 0,
			}
			if got := next(f); got != tt.want {
				t.Errorf("next(%+v) = %d, want %d", f, got, tt.want)
			}
		})
	}
}

// TestNextInGrace_SES07_SES08 is the rest of the table: an end with a grace time.
func TestNextInGrace_SES07_SES08(t *testing.T) {
	const (
		away     = iota // no record at the address
		back            // a record of the subscriber, of another session
		stranger        // a record of another subscriber
		own             // the record that has got the binding again
	)
	tests := []struct {
		phase    Phase
		who      int
		grace    bool // the grace time runs
		removal  bool
		sessions int
		want     action
	}{
		{Saved, away, true, true, 0, closeGate}, // no session to keep
		{Open, away, true, true, 9, drain},
		{Open, away, true, false, 9, drain},
		{Open, back, true, true, 9, resume}, // before the gate was narrowed
		{Open, stranger, true, true, 9, closeGate},
		{Open, away, false, true, 9, closeGate}, // over before the gate was narrowed

		{Draining, away, true, true, 9, stay},
		{Draining, away, true, true, 0, stay}, // an idle subscriber may return
		{Draining, back, true, true, 9, resume},
		{Draining, back, true, false, 9, resume},
		{Draining, stranger, true, true, 9, closeGate}, // SES-07
		{Draining, stranger, true, false, 9, closeGate},
		{Draining, away, false, true, 9, closeGate},
		{Draining, away, false, false, 9, askIdle},
		{Draining, away, false, false, 0, closeGate},
		{Draining, back, false, false, 9, closeGate}, // too late

		{Returned, own, false, true, 9, program}, // and not flush
		{Returned, own, false, false, 9, program},
		{Returned, away, false, true, 9, closeGate},
		{Returned, away, false, false, 9, drain},
		{Returned, away, true, true, 9, drain},
		{Returned, back, true, true, 9, resume},
		{Returned, stranger, false, false, 9, closeGate},
	}
	for _, tt := range tests {
		f := facts{
			phase: tt.phase, online: tt.who != away, own: tt.who == own,
			grace: tt.grace, same: tt.grace && tt.who == back, removal: tt.removal, sessions: tt.sessions, empty: tt.sessions == 0,
		}
		if got := next(f); got != tt.want {
			t.Errorf("next(%+v) = %d, want %d", f, got, tt.want)
		}
	}
}

// TestStrayAlwaysClosed: kernel state without a binding is removed in all
// cases.
func TestStrayAlwaysClosed(t *testing.T) {
	for _, removal := range []bool{true, false} {
		for _, online := range []bool{true, false} {
			for _, p := range []Phase{Open, Draining} {
				for _, grace := range []bool{true, false} {
					f := facts{phase: p, stray: true, removal: removal, online: online, grace: grace, same: grace && online, sessions: 5}
					if got := next(f); got != closeGate {
						t.Errorf("next(%+v) = %d, want closeGate", f, got)
					}
				}
			}
		}
	}
}

func TestPendingWaits_NAT37(t *testing.T) {
	if got := next(facts{phase: Idle, online: true, pending: true}); got != stay {
		t.Errorf("a subscriber in line asks again: %d", got)
	}
}

// TestBypassedGateIsCutByTheReap_DEL01: where a flowtable may carry packets past the gate, the
// receipt says that they stopped when their entries were gone, and nothing before that.
func TestBypassedGateIsCutByTheReap_DEL01(t *testing.T) {
	for _, bypassed := range []bool{false, true} {
		p := newPlayer(t)
		for _, line := range []string{"0s start 1 alice a1", "0s stored", "0s programmed", "10s sessions 1 3", "60s stop 1"} {
			p.input(line)
		}
		closed, want := "61s closed", p.began.Add(61*time.Second)
		if bypassed {
			closed, want = closed+" bypassed=1", p.began.Add(63*time.Second)
		}
		p.input(closed)
		b, _ := p.engine.Live("g", netip.MustParseAddr("100.64.0.1"))
		if said := b.Receipt != nil && !b.Receipt.CutAt.IsZero(); said == bypassed {
			t.Errorf("bypassed %t: before the reap the receipt is %+v", bypassed, b.Receipt)
		}
		p.input("63s reaped")
		if r := p.writes[len(p.writes)-1].Binding.Receipt; r == nil || !r.CutAt.Equal(want) || !r.ReapedAt.Equal(p.began.Add(63*time.Second)) || r.Elements != 2 {
			t.Errorf("bypassed %t: the receipt is %+v, want a cut at %v", bypassed, r, want)
		}
	}
}

// TestOutdated: a change that the slot is ahead of tells of the slot only if it is certainly of the
// session there.
func TestOutdated(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	key := subscriber.Key{Group: "g", Inside: netip.MustParseAddr("100.64.0.1")}
	record := func(user string) subscriber.Record {
		return subscriber.Record{Key: key, UserName: user, StartedAt: t0, SessionID: subscriber.SessionID{Client: "bng", NAS: "nas", AcctSessionID: user}}
	}
	counters := func(after time.Duration) subscriber.Record {
		return subscriber.Record{Key: key, UpdatedAt: t0.Add(after)}
	}
	bob := record("bob")
	s := &Slot{packed: bob.Pack()}
	for name, c := range map[string]struct {
		kind    subscriber.ChangeKind
		partial bool
		of      subscriber.Record
		user    string
		slot    bool
	}{
		"his Start":                {subscriber.Created, false, record("bob"), "bob", true},
		"the Start of another":     {subscriber.Created, false, record("alice"), "alice", false},
		"his Interim":              {subscriber.Updated, true, counters(time.Second), "bob", true},
		"an Interim before his":    {subscriber.Updated, true, counters(-time.Second), "", false},
		"a Stop":                   {subscriber.Deleted, true, counters(-time.Second), "", false},
		"the deletion of another":  {subscriber.Deleted, false, record("alice"), "alice", false},
		"the deletion of his like": {subscriber.Deleted, false, record("bob"), "bob", false},
	} {
		got := outdated(s, &subscriber.Change{Kind: c.kind, Partial: c.partial, Record: c.of.Pack()})
		if got.Record.UserName() != c.user || (got.Slot != nil) != c.slot || !got.Outdated {
			t.Errorf("%s: of user %q, slot %t", name, got.Record.UserName(), got.Slot != nil)
		}
	}
}
