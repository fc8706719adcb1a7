package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/reconcile"
)

// readiness determines whether the daemon is ready, and the reason if not.
type readiness struct {
	*sharedState
	health *databaseHealth
	leases *groupLeases
}

// notReady returns the reason that the daemon is not ready; nil if it is.
func (r *readiness) notReady() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if cause := r.causeRLocked(); cause != "" {
		return errors.New(cause)
	}
	return nil
}

func (r *readiness) causeRLocked() string {
	if err := r.leases.taken(); err != nil {
		return err.Error()
	}
	if err := r.health.failure(); err != nil {
		return fmt.Sprintf("redis: %v", err)
	}
	if r.settled {
		return ""
	}
	const restoring = "restoring bindings and comparing them with database and kernel"
	for _, g := range r.groups {
		if g.failure != nil {
			return fmt.Sprintf("%s: group %s: %v", restoring, g.Name, g.failure)
		}
	}
	return restoring
}

// restoredRLocked returns an error until everything was restored for the first
// time. Before that, an answer would show subscribers as offline and ports as
// free.
func (r *readiness) restoredRLocked() error {
	if r.settled {
		return nil
	}
	return fmt.Errorf("%w: %s", inspect.ErrNotReady, r.causeRLocked())
}

// suspicionRLocked returns why absence in the database proves nothing; "" if it
// does.
func (r *readiness) suspicionRLocked() string {
	var causes []string
	for _, g := range r.groups {
		switch {
		case g.Suspect():
			causes = append(causes, fmt.Sprintf("group %s: the database lost its epoch marker or went back in time", g.Name))
		case g.Unconfirmed() > 0:
			causes = append(causes, fmt.Sprintf("group %s: %d records were written back and no BNG has confirmed them yet", g.Name, g.Unconfirmed()))
		}
	}
	slices.Sort(causes)
	return strings.Join(causes, "; ")
}

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
		Restoring:   !g.Synced(),
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
	var drifts []inspect.Drift
	compare := func() (int, error) {
		var err error
		if drifts, err = v.reconciler.Compare(ctx, reconcile.Comparison{DryRun: dryRun, Audit: true}); err != nil {
			err = fmt.Errorf("%w: %w", inspect.ErrUnavailable, err)
		}
		return len(drifts), err
	}
	if dryRun {
		_, err := compare()
		return drifts, err
	}
	_, err := v.ordered(ctx, func(*audit.Entry) {}, compare)
	return drifts, err
}
