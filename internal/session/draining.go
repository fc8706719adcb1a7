package session

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// runIdle lets go of draining addresses whose last session ended.
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
			if err := m.refreshDraining(ctx); err != nil && ctx.Err() == nil {
				m.log.Warn("look at draining addresses", "err", err)
			}
		}
	}
}

func (m *Manager) stepDraining(inside netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.slots.at(inside); s != nil && s.phase == draining {
		m.stepLocked(s)
	}
}

func (m *Manager) refreshDraining(ctx context.Context) error {
	m.mu.RLock()
	waiting := slices.Collect(maps.Keys(m.draining))
	m.mu.RUnlock()
	if len(waiting) == 0 {
		return nil
	}
	err := m.kernel.Refresh(ctx, waiting)
	for _, inside := range waiting {
		m.stepDraining(inside)
	}
	return err
}
