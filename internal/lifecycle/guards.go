package lifecycle

import (
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Records that are gone by other hands than sessiond's go through the guard of
// their group before their end is announced: of a wave that takes too many it
// lets a part pass, the others are written back to wait for a person (DEL-13).
// A NAS's or a person's word about a session comes as a Deleted change, and never
// gets here.

// judgment is the guard's answer about a slot's record since that was last heard of.
type judgment uint8

const (
	unjudged judgment = iota
	passed            // it may end
	held              // it is written back
)

// Passes reports whether the record of a slot, nil for none, may end, which is gone for a
// reason. Each is asked about once, however many notice that it is gone; alarm is the guard's
// answer where its limit is exceeded for the first time in this wave.
func (g *Group) Passes(s *Slot, why subscriber.Reason, now time.Time) (passes bool, alarm *guard.Answer) {
	if s == nil || !s.online || s.Group() != g.Name {
		return true, nil // nobody is served
	}
	if s.judged != unjudged {
		return s.judged == passed, nil
	}
	answer := g.Guard.Take(why, 1, g.online, now)
	if answer.First {
		alarm = &answer
	}
	if s.judged = passed; answer.Passed == 0 {
		s.judged = held
	}
	return s.judged == passed, alarm
}
