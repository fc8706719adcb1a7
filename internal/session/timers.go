package session

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// timersEvery is how often the timers are looked at when many are due one after the
// other, as the holds of a busy time are.
const timersEvery = 10 * time.Millisecond

// lifeTimers has the life cycle end holds and grace times, and look up records that should
// have expired.
type lifeTimers struct {
	*sharedState
	wake chan struct{} // says that something is due earlier than it was
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

// wait waits for the next hold, grace time or expiry to be due, or for news of one.
func (t *lifeTimers) wait(ctx context.Context) error {
	wait := t.untilDue()
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-t.wake:
	}
	return nil
}

func (t *lifeTimers) untilDue() time.Duration {
	t.mu.Lock() // the engine drops holds that are void
	defer t.mu.Unlock()
	now := t.now()
	return t.life.NextDue(now).Sub(now)
}

// signal wakes a task, or has it go on at once when it waits next.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
