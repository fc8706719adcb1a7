package session

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/queue"
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

// idleKernel reports addresses without sessions.
type idleKernel interface {
	Idle() <-chan netip.Addr
	Idlers(ctx context.Context, inside []netip.Addr) ([]netip.Addr, error) // returns the given addresses that certainly have no session; for few addresses
}

// idleWatch detects the end of the last session of a draining address.
type idleWatch struct {
	*sharedState
	kernel idleKernel
	asks   *queue.Queue[*lifecycle.Drain] // addresses to ask the kernel about
}

// run receives notices that an address has no session left.
func (w *idleWatch) run(ctx context.Context) error {
	// A notice may be lost with the kernel's events, so all draining addresses are
	// also checked every second.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case inside, ok := <-w.kernel.Idle():
			if !ok {
				return errors.New("session: the kernel's idle notices ended")
			}
			w.stepDraining(inside)
		case <-tick.C:
			w.stepAllDraining()
		}
	}
}

func (w *idleWatch) stepDraining(inside netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.life.Slot(inside); s != nil && s.Phase() == lifecycle.Draining {
		w.life.Step(s, w.now())
	}
}

func (w *idleWatch) stepAllDraining() {
	w.mu.RLock()
	waiting := slices.Collect(w.life.Drains().Addresses())
	w.mu.RUnlock()
	for _, inside := range waiting {
		w.stepDraining(inside)
	}
}

// runAsks asks the kernel about all queued draining addresses at once, and ends
// those without sessions. A session count of zero does not suffice: the index
// is fed by events, which rules of others may mask.
func (w *idleWatch) runAsks(ctx context.Context) error {
	for batch := []*lifecycle.Drain(nil); ; {
		var err error
		if batch, err = w.asks.Dequeue(ctx, batch); err != nil {
			return err
		}
		inside := make([]netip.Addr, len(batch))
		for i, d := range batch {
			inside[i] = d.Inside
		}
		empty, err := w.kernel.Idlers(ctx, inside)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("look at draining addresses", "error", err)
		}
		w.asked(batch, empty)
	}
}

func (w *idleWatch) asked(batch []*lifecycle.Drain, empty []netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := make(map[netip.Addr]*lifecycle.Drain, len(batch))
	for _, d := range batch {
		d.Answered()
		at[d.Inside] = d // the newest
	}
	now := w.now()
	for _, inside := range empty {
		if d := at[inside]; d != nil {
			w.life.Emptied(d, now)
		}
	}
}
