// Package throttle thins out log lines that others can provoke.
package throttle

import (
	"sync"
	"time"
)

// Interval is the time between two lines of one kind.
const Interval = 10 * time.Second

// A Throttle thins out the lines of one kind. The zero value is ready.
type Throttle struct {
	mu         sync.Mutex
	next       time.Time
	suppressed int
}

// Allow reports whether a line may be written now, and how many were not since
// the last one.
func (t *Throttle) Allow(now time.Time) (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed = t.suppressed, 0
	t.next = now.Add(Interval)
	return suppressed, true
}
