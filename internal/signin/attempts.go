package signin

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of attempts that fail, of one source: so many at once, and one more in each interval. A
// token has 15 random octets at least, so that this alone does not keep anybody out: it keeps the log
// short, and attempts few enough to be seen.
const (
	attemptsAtOnce  = 5
	attemptInterval = 10 * time.Second
	attemptSources  = 1024 // further sources share one bound
)

// Attempts bounds the attempts to sign in that fail. Its methods may be called concurrently; the zero value
// is ready.
type Attempts struct {
	mu      sync.Mutex
	sources map[string]*rate.Limiter
	others  *rate.Limiter
}

// Fail counts an attempt of a source that failed. It returns 0 within the bound, and else the time
// after which the next one is.
func (a *Attempts) Fail(source string, now time.Time) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	attempt := a.limiterLocked(source, now).ReserveN(now, 1)
	if wait = attempt.DelayFrom(now); wait > 0 {
		attempt.CancelAt(now)
	}
	return wait
}

func (a *Attempts) limiterLocked(source string, now time.Time) *rate.Limiter {
	if a.sources == nil {
		a.sources, a.others = map[string]*rate.Limiter{}, newLimiter()
	}
	l, known := a.sources[source]
	if known {
		return l
	}
	if len(a.sources) == attemptSources {
		maps.DeleteFunc(a.sources, func(_ string, l *rate.Limiter) bool { return l.TokensAt(now) >= attemptsAtOnce })
	}
	if len(a.sources) == attemptSources {
		return a.others
	}
	l = newLimiter()
	a.sources[source] = l
	return l
}

func newLimiter() *rate.Limiter { return rate.NewLimiter(rate.Every(attemptInterval), attemptsAtOnce) }
