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

		{draining, ended, false, 2, stay},
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
				removal: tt.removal, sessions: tt.sessions,
			}
			if got := next(f); got != tt.want {
				t.Errorf("next(%+v) = %d, want %d", f, got, tt.want)
			}
		})
	}
}

// TestStrayAlwaysClosed: kernel state without a binding goes, whatever else holds.
func TestStrayAlwaysClosed(t *testing.T) {
	for _, removal := range []bool{true, false} {
		for _, online := range []bool{true, false} {
			for _, p := range []phase{open, draining} {
				f := facts{phase: p, stray: true, removal: removal, online: online, sessions: 5}
				if got := next(f); got != closeGate {
					t.Errorf("next(%+v) = %d, want closeGate", f, got)
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
