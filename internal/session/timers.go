package session

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// timersEvery is the minimum time between two looks at the timers, because
// under load many holds end one after the other.
const timersEvery = 10 * time.Millisecond

// lifeTimers ends holds and grace times, and looks up records that should have
// expired.
type lifeTimers struct {
	*sharedState
	wake chan struct{} // receives when a timer is due earlier than before
}

func (t *lifeTimers) run(ctx context.Context) error {
	for {
		if err := t.wait(ctx); err != nil {
			return err
		}
		t.tick()
		if err := clock.Sleep(ctx, timersEvery); err != nil {
			return err
		}
	}
}

func (t *lifeTimers) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.life.Tick(t.now())
}

// wait waits until the next hold, grace time or expiry is due, or until wake.
func (t *lifeTimers) wait(ctx context.Context) error {
	_, err := clock.SleepOr(ctx, t.untilDue(), t.wake)
	return err
}

func (t *lifeTimers) untilDue() time.Duration {
	t.mu.Lock() // the engine drops void holds
	defer t.mu.Unlock()
	now := t.now()
	return t.life.NextDue(now).Sub(now)
}

// signal wakes a task, or makes its next wait return at once.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
