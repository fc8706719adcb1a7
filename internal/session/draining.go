package session

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/lifecycle"
)

// runIdle takes notices that an address has no session left.
func (m *Manager) runIdle(ctx context.Context) error {
	// The kernel's notice may be lost with its events, so all draining
	// addresses are also looked at now and then.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case inside, ok := <-m.kernel.Idle():
			if !ok {
				return errors.New("session: the kernel's idle notices ended")
			}
			m.stepDraining(inside)
		case <-tick.C:
			m.stepAllDraining()
		}
	}
}

func (m *Manager) stepDraining(inside netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.life.Slot(inside); s != nil && s.Phase() == lifecycle.Draining {
		m.life.Step(s, m.now())
	}
}

func (m *Manager) stepAllDraining() {
	m.mu.RLock()
	waiting := slices.Collect(m.life.Drains().Addresses())
	m.mu.RUnlock()
	for _, inside := range waiting {
		m.stepDraining(inside)
	}
}

// runIdlers asks the kernel about the draining addresses, all that are waiting in one go,
// and lets go of those whose last session ended. A count of zero would not do: it is
// what was told, and the kernel may have been made to tell less.
func (m *Manager) runIdlers(ctx context.Context) error {
	for batch := []*lifecycle.Drain(nil); ; {
		var err error
		if batch, err = m.idlers.take(ctx, batch); err != nil {
			return err
		}
		inside := make([]netip.Addr, len(batch))
		for i, d := range batch {
			inside[i] = d.Inside
		}
		empty, err := m.kernel.Idlers(ctx, inside)
		if err != nil && ctx.Err() == nil {
			m.log.Warn("look at draining addresses", "err", err)
		}
		m.idlersDone(batch, empty)
	}
}

func (m *Manager) idlersDone(batch []*lifecycle.Drain, empty []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := make(map[netip.Addr]*lifecycle.Drain, len(batch))
	for _, d := range batch {
		d.Answered()
		at[d.Inside] = d // the newest
	}
	now := m.now()
	for _, inside := range empty {
		if d := at[inside]; d != nil {
			m.life.Emptied(d, now)
		}
	}
}
