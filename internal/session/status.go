package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/reconcile"
)

// Status returns the life cycle at a glance; who serves it adds version and
// start time.
func (v *Backend) Status(context.Context) (inspect.Status, error) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	s := inspect.Status{
		Node:            v.node,
		NotReady:        v.m.notReadyLocked(),
		DatabaseUp:      v.m.health.failure() == nil,
		DatabaseSuspect: v.m.suspicionLocked(),
		Settings:        v.m.settings.inForce,
		Sessions:        v.kernel.SessionTotal(),
	}
	s.ReconciledAt, s.Drifts = v.m.reconciler.LastLocked()
	for _, g := range v.m.groups {
		s.Groups = append(s.Groups, v.groupStatusLocked(g))
	}
	slices.SortFunc(s.Groups, func(a, b inspect.GroupStatus) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}

// NotReady says why the daemon is not ready, or nothing when it is.
func (m *Manager) NotReady() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if cause := m.notReadyLocked(); cause != "" {
		return errors.New(cause)
	}
	return nil
}

func (m *Manager) notReadyLocked() string {
	if err := m.leases.taken(); err != nil {
		return err.Error()
	}
	if err := m.health.failure(); err != nil {
		return fmt.Sprintf("redis: %v", err)
	}
	if m.settled {
		return ""
	}
	const restoring = "restoring bindings and comparing them with database and kernel"
	for _, g := range m.groups {
		if g.failure != nil {
			return fmt.Sprintf("%s: group %s: %v", restoring, g.Name, g.failure)
		}
	}
	return restoring
}

// restoredRLocked is an error until everything was restored for the first time.
// Until then nobody seems to be online and no port to be in use, and to say so
// would be a wrong answer.
func (m *Manager) restoredRLocked() error {
	if m.settled {
		return nil
	}
	return fmt.Errorf("%w: %s", inspect.ErrNotReady, m.notReadyLocked())
}

// suspicionLocked says why absence in the database is not believed.
func (m *Manager) suspicionLocked() string {
	var causes []string
	for _, g := range m.groups {
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

func (v *Backend) groupStatusLocked(g *group) inspect.GroupStatus {
	quarantined, until := v.m.life.Engine().Quarantined(g.Name)
	return inspect.GroupStatus{
		Name:        g.Name,
		Subscribers: g.Online(),
		Pending:     v.m.life.Engine().Pending(g.Name),
		FeedLag:     g.lagLocked(v.m.now()),
		FeedGaps:    g.gaps,
		FeedFill:    v.store.FeedFill(g.Name),
		Active:      g.In(lifecycle.Saved) + g.In(lifecycle.Open) + g.In(lifecycle.Returned),
		Draining:    g.In(lifecycle.Draining),
		Cut:         g.In(lifecycle.Cut),
		Held:        v.m.life.Engine().Held(g.Name),

		RemovalsHeld: maps.Clone(g.Held()),

		Quarantined: quarantined, QuarantinedUntil: until,
	}
}

// Reconcile compares database, engine and kernel in full.
func (v *Backend) Reconcile(ctx context.Context, dryRun bool) ([]inspect.Drift, error) {
	if v.m.NotReady() != nil {
		return nil, fmt.Errorf("%w: %w", inspect.ErrNotReady, v.m.NotReady())
	}
	drifts, err := v.m.reconciler.Compare(ctx, reconcile.Comparison{DryRun: dryRun, Audit: true})
	if err != nil {
		return drifts, fmt.Errorf("%w: %w", inspect.ErrUnavailable, err)
	}
	return drifts, nil
}

// Quiet waits until no slot is being worked on and all bindings are stored.
func (m *Manager) Quiet(ctx context.Context) error {
	for {
		m.mu.RLock()
		busy := m.life.Busy() + m.life.Writes().Len()
		m.mu.RUnlock()
		if busy == 0 {
			return nil
		}
		if err := clock.Sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%d addresses and bindings are being worked on: %w", busy, err)
		}
	}
}
