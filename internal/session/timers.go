package session

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// timersEvery is how often the timers are looked at when many are due one after the
// other, as the holds of a busy time are.
const timersEvery = 10 * time.Millisecond

// runTimers has the life cycle end holds and grace times, and look up records that should
// have expired.
func (m *Manager) runTimers(ctx context.Context) error {
	for {
		if err := m.waitTimers(ctx); err != nil {
			return err
		}
		m.tick()
		if err := clock.Sleep(ctx, timersEvery); err != nil {
			return err
		}
	}
}

func (m *Manager) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life.Tick(m.now())
}

// waitTimers waits for the next hold, grace time or expiry to be due, or for news of one.
func (m *Manager) waitTimers(ctx context.Context) error {
	wait := m.untilDue()
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-m.timers:
	}
	return nil
}

func (m *Manager) untilDue() time.Duration {
	m.mu.Lock() // the engine drops holds that are void
	defer m.mu.Unlock()
	now := m.now()
	return m.life.NextDue(now).Sub(now)
}
