package guard

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Guard bounds the removals of one group. Its methods must not be called
// concurrently.
type Guard struct {
	limits Limits
	waves  map[subscriber.Reason]*wave
}

// A wave is a series of removals for one reason: a token bucket. Its size is a
// share of the subscribers online when it was last full. Once it has run dry no
// removal passes any more, or a slow wave would take all subscribers bit by
// bit. It ends after a whole window without removals, or when a person has
// decided.
type wave struct {
	size  int
	left  float64
	seen  time.Time // newest removal
	spent bool      // a removal was held
}

// New returns a guard with these limits.
func New(l Limits) *Guard {
	return &Guard{limits: l, waves: map[subscriber.Reason]*wave{}}
}

// SetLimits changes the limits. Waves under way keep theirs.
func (g *Guard) SetLimits(l Limits) { g.limits = l }

// Answer is a guard's answer to requested removals.
type Answer struct {
	Passed int
	Limit  int  // of the wave; set if a removal is held
	First  bool // the first held removal of this wave
}

// Ask asks for n removals; online counts the group's subscribers, including
// these n. As many pass as the wave has left.
func (g *Guard) Ask(why subscriber.Reason, n, online int, now time.Time) Answer {
	w := g.wave(why, online, now)
	if w == nil {
		return Answer{Passed: n}
	}
	return w.admit(n, min(n, int(w.left)))
}

// AskWhole is Take for removals of one cause: all of them pass or none.
func (g *Guard) AskWhole(why subscriber.Reason, n, online int, now time.Time) Answer {
	w := g.wave(why, online, now)
	if w == nil {
		return Answer{Passed: n}
	}
	if n > int(w.left) {
		return w.admit(n, 0)
	}
	return w.admit(n, n)
}

// Decided ends a wave because a person has confirmed or refused it.
func (g *Guard) Decided(why subscriber.Reason) { delete(g.waves, why) }

// wave returns the present wave of a reason, nil for an unbounded one.
func (g *Guard) wave(why subscriber.Reason, online int, now time.Time) *wave {
	share, bounded := g.limits.share(why)
	if !bounded {
		return nil
	}
	w := g.waves[why]
	if w == nil || !w.goesOn(now, g.limits.Window) {
		size := g.limits.of(share, online)
		w = &wave{size: size, left: float64(size)}
		g.waves[why] = w
	}
	w.seen = now
	return w
}

// goesOn refills the bucket for the time since the last removal, and reports
// whether the wave still goes on.
func (w *wave) goesOn(now time.Time, window time.Duration) bool {
	passed := max(now.Sub(w.seen), 0) // a clock may be set back
	if passed >= window {
		return false
	}
	if w.spent {
		return true
	}
	w.left += float64(w.size) * float64(passed) / float64(window)
	return w.left < float64(w.size)
}

func (w *wave) admit(n, passed int) Answer {
	w.left -= float64(passed)
	if passed == n {
		return Answer{Passed: n}
	}
	first := !w.spent
	w.left, w.spent = 0, true
	return Answer{Passed: passed, Limit: w.size, First: first}
}
