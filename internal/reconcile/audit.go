package reconcile

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/reconcile/drift"
)

// auditEvery is the number of full looks per audit, which walks the whole
// conntrack table.
const auditEvery = 20

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// sessions walks over the conntrack table, if the comparison includes an audit.
// It looks for sessions of addresses without a binding, and for sessions with a
// port outside their subscriber's block (NAT-40).
func (p *pass) sessions(ctx context.Context) error {
	if !p.how.Audit {
		return nil
	}
	g := p.group
	if !p.alone {
		p.reconciling.Lock()
		defer p.reconciling.Unlock()
	}
	p.watchTouches(g, true)
	defer p.watchTouches(g, false)
	var failed error
	v := drift.Views{Engine: drift.Engine{Slots: map[netip.Addr]drift.Slot{}}}
	v.Kernel.Sessions = func(yield func(drift.Session) bool) {
		failed = p.kernel.Sessions(ctx, func(s nftnat.Session) error {
			found := drift.Session{Session: s.Session, Ref: s}
			if p.doubtful(&v, found) && !yield(found) {
				return errEnough
			}
			return nil
		})
	}
	r := repair{Reconciler: p.Reconciler, dryRun: p.how.DryRun, group: g, anew: p.anew, gone: p.gone}
	known := len(p.drifts)
	if err := p.mend(ctx, &r, drift.Diff(&v)); err != nil {
		return err
	}
	p.nameTranslators(ctx, p.drifts[known:])
	if errors.Is(failed, errEnough) {
		return nil
	}
	return failed
}

// nameTranslators adds, to drifts about sessions outside their blocks, the
// chains of others that may have translated them.
func (p *pass) nameTranslators(ctx context.Context, drifts []inspect.Drift) {
	var others string
	for i := range drifts {
		d := &drifts[i]
		if d.Kind != inspect.DriftSessionOutOfBlock {
			continue
		}
		if others == "" {
			chains, err := p.kernel.Translators(ctx)
			if err != nil || len(chains) == 0 {
				return
			}
			others = "; translated by others, perhaps: " + strings.Join(chains, "; ")
		}
		d.What += others
	}
}

// doubtful reports whether to compare a session: one of the group that its slot
// does not explain at first sight. It adds that slot to the views.
func (p *pass) doubtful(v *drift.Views, found drift.Session) bool {
	inside := found.Inside.Addr()
	if _, known := v.Engine.Slots[inside]; known {
		return true
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.life.ServerOf(inside) != p.group.Group {
		return false
	}
	s := p.life.Slot(inside)
	if s == nil {
		return true
	}
	slot := p.slotViewRLocked(s)
	_, wrong := slot.Misplaced(found)
	if wrong {
		v.Engine.Slots[inside] = slot
	}
	return wrong
}

// killAll deletes sessions that are in no subscriber's block.
func (p *pass) killAll(ctx context.Context, misplaced []nftnat.Session) error {
	for _, s := range misplaced {
		if err := p.kernel.KillSession(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
