package session

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// auditEvery is how many periodic reconciles pass between two audits, which
// walk the whole conntrack table.
const auditEvery = 20

// audit looks for translated sessions of addresses that have no binding, or that
// use a port outside their subscriber's block (NAT-40), and ends them unless
// dryRun.
func (m *Manager) audit(ctx context.Context, g *group, dryRun bool) ([]inspect.Drift, error) {
	var drifts []inspect.Drift
	err := m.kernel.Sessions(ctx, func(s nftnat.Session) error {
		kind, wrong := m.misplaced(g, s)
		if !wrong {
			return nil
		}
		d := inspect.Drift{
			Kind: kind, Group: g.name, Inside: s.Inside.Addr(), Mended: !dryRun,
			What: fmt.Sprintf("session from %s as %s to %s is in nobody's block; ended", s.Inside, s.Outside, s.Remote),
		}
		drifts = append(drifts, d)
		if dryRun {
			return nil
		}
		m.observer.Drift(string(kind))
		return m.kernel.KillSession(ctx, s)
	})
	return drifts, err
}

// misplaced tells a session that its subscriber's binding does not account for.
// Sessions with the CGN itself are not translated, and none of our business.
func (m *Manager) misplaced(g *group, s nftnat.Session) (inspect.DriftKind, bool) {
	inside := s.Inside.Addr()
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.serverOfLocked(inside) != g || s.Outside == s.Inside || m.movingLocked(g, inside) {
		return "", false
	}
	slot := m.slots[inside]
	switch {
	case slot == nil || slot.phase == idle:
		return inspect.DriftSessionOrphaned, true
	case !slot.stray && !within(slot.block, s.Outside):
		return inspect.DriftSessionOutOfBlock, true
	}
	return "", false
}

func within(b lsn.Block, a netip.AddrPort) bool {
	return a.Addr() == b.Outside && b.First <= lsn.Port(a.Port()) && lsn.Port(a.Port()) <= b.Last
}
