package session

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// A drainage is one drain of an address: of who comes back and drains again there is
// another one.
type drainage struct {
	inside netip.Addr
	asked  bool // the kernel is, or is about to be, asked
	empty  bool // it said that no session is left
}

func (m *Manager) drainsFromNowLocked(inside netip.Addr) {
	m.draining[inside] = &drainage{inside: inside}
}

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
	if s := m.slots.at(inside); s != nil && s.phase == draining {
		m.stepLocked(s)
	}
}

func (m *Manager) stepAllDraining() {
	m.mu.RLock()
	waiting := slices.Collect(maps.Keys(m.draining))
	m.mu.RUnlock()
	for _, inside := range waiting {
		m.stepDraining(inside)
	}
}

// askIdleLocked has the kernel asked whether the draining slot has any session left.
func (m *Manager) askIdleLocked(s *slot) {
	if d := m.draining[s.inside()]; d != nil && !d.asked {
		d.asked = true
		give(m, m.idlers, d)
	}
}

// runIdlers asks the kernel about the draining addresses, all that are waiting in one go,
// and lets go of those whose last session ended. A count of zero would not do: it is
// what was told, and the kernel may have been made to tell less.
func (m *Manager) runIdlers(ctx context.Context) error {
	for batch := []*drainage(nil); ; {
		var err error
		if batch, err = m.idlers.take(ctx, batch); err != nil {
			return err
		}
		inside := make([]netip.Addr, len(batch))
		for i, d := range batch {
			inside[i] = d.inside
		}
		empty, err := m.kernel.Idlers(ctx, inside)
		if err != nil && ctx.Err() == nil {
			m.log.Warn("look at draining addresses", "err", err)
		}
		m.idlersDone(batch, empty)
	}
}

func (m *Manager) idlersDone(batch []*drainage, empty []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range batch {
		d.asked = false
	}
	at := make(map[netip.Addr]*drainage, len(batch))
	for _, d := range batch {
		at[d.inside] = d // the newest
	}
	for _, inside := range empty {
		d := at[inside]
		if s := m.slots.at(inside); s != nil && d == m.draining[inside] {
			d.empty = true
			m.stepLocked(s)
		}
	}
}
