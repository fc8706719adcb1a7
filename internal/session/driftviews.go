package session

import (
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/reconcile/drift"
)

func (rc *reconciler) slotViewRLocked(s *lifecycle.Slot) drift.Slot {
	r := s.Record()
	return drift.Slot{
		Online: s.Online(), Identity: drift.IdentityOf(&r), Version: r.Version,
		Pending: s.Phase() == lifecycle.Idle && s.Online() && rc.life.Engine().IsPending(s.Group(), s.Inside()),
		Bound:   s.Phase() != lifecycle.Idle, Stray: s.Stray(),
		Element: s.Expected(), Block: s.Block(),
	}
}
