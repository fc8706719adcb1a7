package session

import (
	"fmt"
	"testing"
)

// TestNext is the life cycle as a table: every phase under every toggle.
func TestNext(t *testing.T) {
	const (
		ended = iota // the record is gone
		own          // a record stands, the binding is its own
		other        // a record stands, the binding is another session's
	)
	tests := []struct {
		phase    phase
		who      int
		removal  bool
		sessions int
		want     action
	}{
		{idle, ended, true, 0, stay},
		{idle, own, true, 0, allocate},
		{idle, own, false, 0, allocate},

		{saved, own, true, 0, program},
		{saved, own, true, 3, flush}, // DEL-06
		{saved, own, false, 3, flush},
		{saved, ended, true, 0, closeGate},
		{saved, ended, false, 0, closeGate}, // never opened: nothing to drain
		{saved, other, false, 0, closeGate},

		{open, own, true, 9, stay},
		{open, own, false, 9, stay},
		{open, ended, true, 9, closeGate}, // DEL-01
		{open, ended, false, 9, drain},    // DEL-11
		{open, other, true, 9, closeGate}, // SES-07
		{open, other, false, 9, closeGate},

		{draining, ended, false, 2, askIdle},
		{draining, ended, false, 0, closeGate},
		{draining, ended, true, 2, closeGate},  // toggle switched on
		{draining, other, false, 2, closeGate}, // the next holder inherits nothing

		{cut, ended, true, 9, reap},
		{cut, own, false, 0, reap},
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
		away     = iota // nobody stands at the address
		back            // a record of the subscriber stands, of another session
		stranger        // a record of somebody else stands
		own             // the record that the binding was given to anew
	)
	tests := []struct {
		phase    phase
		who      int
		grace    bool // runs
		removal  bool
		sessions int
		want     action
	}{
		{saved, away, true, true, 0, closeGate}, // no session to keep
		{open, away, true, true, 9, drain},
		{open, away, true, false, 9, drain},
		{open, back, true, true, 9, resume}, // before the gate was narrowed
		{open, stranger, true, true, 9, closeGate},
		{open, away, false, true, 9, closeGate}, // over before the gate was narrowed

		{draining, away, true, true, 9, stay},
		{draining, away, true, true, 0, stay}, // idle is not gone
		{draining, back, true, true, 9, resume},
		{draining, back, true, false, 9, resume},
		{draining, stranger, true, true, 9, closeGate}, // SES-07
		{draining, stranger, true, false, 9, closeGate},
		{draining, away, false, true, 9, closeGate},
		{draining, away, false, false, 9, askIdle},
		{draining, away, false, false, 0, closeGate},
		{draining, back, false, false, 9, closeGate}, // too late

		{returned, own, false, true, 9, program}, // and not flush
		{returned, own, false, false, 9, program},
		{returned, away, false, true, 9, closeGate},
		{returned, away, false, false, 9, drain},
		{returned, away, true, true, 9, drain},
		{returned, back, true, true, 9, resume},
		{returned, stranger, false, false, 9, closeGate},
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

// TestStrayAlwaysClosed: kernel state without a binding goes, whatever else holds.
func TestStrayAlwaysClosed(t *testing.T) {
	for _, removal := range []bool{true, false} {
		for _, online := range []bool{true, false} {
			for _, p := range []phase{open, draining} {
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
	if got := next(facts{phase: idle, online: true, pending: true}); got != stay {
		t.Errorf("a subscriber in line asks again: %d", got)
	}
}
