package throttle_test

import (
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/throttle"
)

// TestOneLineInAnInterval_I10: the other lines are counted, and the next line
// gives their number.
func TestOneLineInAnInterval_I10(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{0, time.Minute} {
		th := throttle.Throttle{Interval: interval}
		if interval == 0 {
			interval = throttle.DefaultInterval
		}
		now := time.Unix(1_000_000, 0)
		for i, step := range []struct {
			after      time.Duration
			suppressed int
			ok         bool
		}{
			{0, 0, true}, {0, 0, false}, {interval - 1, 0, false}, {1, 2, true}, {interval, 0, true},
		} {
			now = now.Add(step.after)
			if suppressed, ok := th.Allow(now); suppressed != step.suppressed || ok != step.ok {
				t.Errorf("interval %v, line %d: %d, %v, want %d, %v", interval, i, suppressed, ok, step.suppressed, step.ok)
			}
		}
	}
}
