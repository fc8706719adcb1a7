package radiusacct

import (
	"sync"
	"time"
)

// throttleInterval is the time between two log lines about one client.
const throttleInterval = 10 * time.Second

// A throttle thins out log lines that a sender can provoke. The zero value is ready.
type throttle struct {
	mu         sync.Mutex
	next       time.Time
	suppressed int
}

// allow reports whether a line may be written now, and how many were not since
// the last one.
func (t *throttle) allow(now time.Time) (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed = t.suppressed, 0
	t.next = now.Add(throttleInterval)
	return suppressed, true
}
