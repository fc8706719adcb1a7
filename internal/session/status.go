package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/reconcile"
)

// Status returns a summary of the life cycle; the caller adds version and start
// time.
func (v *Backend) Status(context.Context) (inspect.Status, error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	s := inspect.Status{
		Node:            v.node,
		NotReady:        v.readiness.causeRLocked(),
		DatabaseUp:      v.readiness.health.failure() == nil,
		DatabaseSuspect: v.readiness.suspicionRLocked(),
		Settings:        v.settings.inForce,
		Sessions:        v.kernel.SessionTotal(),
	}
	s.ReconciledAt, s.Drifts = v.reconciler.LastLocked()
	for _, g := range v.shared.groups {
		s.Groups = append(s.Groups, v.groupStatusLocked(g))
	}
	slices.SortFunc(s.Groups, func(a, b inspect.GroupStatus) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}

func (v *Backend) groupStatusLocked(g *group) inspect.GroupStatus {
	quarantined, until := v.shared.life.Engine().Quarantined(g.Name)
	return inspect.GroupStatus{
		Name:        g.Name,
		Subscribers: g.Online(),
		Pending:     v.shared.life.Engine().Pending(g.Name),
		FeedLag:     g.lagLocked(v.shared.now()),
		FeedGaps:    g.gaps,
		FeedFill:    v.store.FeedFill(g.Name),
		Active:      g.In(lifecycle.Saved) + g.In(lifecycle.Open) + g.In(lifecycle.Returned),
		Draining:    g.In(lifecycle.Draining),
		Cut:         g.In(lifecycle.Cut),
		Held:        v.shared.life.Engine().Held(g.Name),

		RemovalsHeld: maps.Clone(g.Held()),

		Quarantined: quarantined, QuarantinedUntil: until,
	}
}

// Reconcile compares database, engine and kernel in full.
func (v *Backend) Reconcile(ctx context.Context, dryRun bool) ([]inspect.Drift, error) {
	if v.readiness.notReady() != nil {
		return nil, fmt.Errorf("%w: %w", inspect.ErrNotReady, v.readiness.notReady())
	}
	drifts, err := v.reconciler.Compare(ctx, reconcile.Comparison{DryRun: dryRun, Audit: true})
	if err != nil {
		return drifts, fmt.Errorf("%w: %w", inspect.ErrUnavailable, err)
	}
	return drifts, nil
}
