// Package throttle bounds the rate of log lines that other systems can provoke.
package throttle

import (
	"cmp"
	"sync"
	"time"
)

// DefaultInterval is the time between two lines of one kind.
const DefaultInterval = 10 * time.Second

// A Throttle bounds the rate of lines of one kind. The zero value is ready.
type Throttle struct {
	Interval time.Duration // between two lines; optional, DefaultInterval

	mu         sync.Mutex
	next       time.Time
	suppressed int
}

// Allow reports whether a line may be written now, and how many were suppressed
// since the last one.
func (t *Throttle) Allow(now time.Time) (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed = t.suppressed, 0
	t.next = now.Add(cmp.Or(t.Interval, DefaultInterval))
	return suppressed, true
}
