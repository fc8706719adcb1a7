package guard

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Guard watches the removals of one group. Its methods must not be called
// concurrently.
type Guard struct {
	limits Limits
	waves  map[subscriber.Reason]*wave
}

// A wave is removals for one reason that follow each other: a token bucket. Its
// size is a share of those who were online when it was last full. Once it has
// run dry nothing passes any more, or a slow wave would take everybody bit by
// bit: it is over when none came for a whole window, or a person has decided.
type wave struct {
	size  int
	left  float64
	seen  time.Time // newest removal
	spent bool      // something was held
}

// New returns a guard with these limits.
func New(l Limits) *Guard {
	return &Guard{limits: l, waves: map[subscriber.Reason]*wave{}}
}

// SetLimits changes the limits. Waves under way keep theirs.
func (g *Guard) SetLimits(l Limits) { g.limits = l }

// Answer says what a guard lets pass.
type Answer struct {
	Passed int
	Limit  int  // of the wave; set where something is held
	First  bool // the first time in this wave that something is held
}

// Take asks for n removals of a group with so many subscribers online, those n
// among them. As many pass as the wave has left.
func (g *Guard) Take(why subscriber.Reason, n, online int, now time.Time) Answer {
	w := g.wave(why, online, now)
	if w == nil {
		return Answer{Passed: n}
	}
	return w.take(n, min(n, int(w.left)))
}

// TakeWhole is Take for removals of one cause: all of them pass or none.
func (g *Guard) TakeWhole(why subscriber.Reason, n, online int, now time.Time) Answer {
	w := g.wave(why, online, now)
	if w == nil {
		return Answer{Passed: n}
	}
	if n > int(w.left) {
		return w.take(n, 0)
	}
	return w.take(n, n)
}

// Decided ends a wave: a person has confirmed or refused it.
func (g *Guard) Decided(why subscriber.Reason) { delete(g.waves, why) }

// wave returns the wave as it stands now, nil for what is not bounded.
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

// goesOn gives the wave back what time has earned it, and reports whether it is
// not over yet.
func (w *wave) goesOn(now time.Time, window time.Duration) bool {
	passed := max(now.Sub(w.seen), 0) // clocks are set back
	if passed >= window {
		return false
	}
	if w.spent {
		return true
	}
	w.left += float64(w.size) * float64(passed) / float64(window)
	return w.left < float64(w.size)
}

func (w *wave) take(n, passed int) Answer {
	w.left -= float64(passed)
	if passed == n {
		return Answer{Passed: n}
	}
	first := !w.spent
	w.left, w.spent = 0, true
	return Answer{Passed: passed, Limit: w.size, First: first}
}
