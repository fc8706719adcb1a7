package lifecycle

import (
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Records that others removed go through the guard of their group before their
// end is announced. Of a wave that is too large it lets a part pass; the other
// records are written back, and wait for a person (DEL-13). Ends by a NAS or a
// person come as Deleted changes, and bypass the guard.

// judgment is the guard's answer about a slot's missing record, until the
// record is updated.
type judgment uint8

const (
	unjudged judgment = iota
	passed            // it may end
	held              // it is written back
)

// Passes reports whether the missing record of a slot, nil for none, may end
// for the reason. The guard is asked once for each record, however often its
// absence is noticed. alarm is the guard's answer if that exceeds its limit for
// the first time in this wave.
func (g *Group) Passes(s *Slot, why subscriber.Reason, now time.Time) (passes bool, alarm *guard.Answer) {
	if s == nil || !s.online || s.Group() != g.Name {
		return true, nil // no subscriber is served
	}
	if s.judged != unjudged {
		return s.judged == passed, nil
	}
	answer := g.Guard.Ask(why, 1, g.online, now)
	if answer.First {
		alarm = &answer
	}
	if s.judged = passed; answer.Passed == 0 {
		s.judged = held
	}
	return s.judged == passed, alarm
}
