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
)

// Status returns the life cycle at a glance; who serves it adds version and
// start time.
func (m *Manager) Status(context.Context) (inspect.Status, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := inspect.Status{
		Node:            m.node,
		NotReady:        m.notReadyLocked(),
		DatabaseUp:      m.databaseFailureRLocked() == nil,
		DatabaseSuspect: m.suspicionLocked(),
		Settings:        m.settings,
		Sessions:        m.kernel.SessionTotal(),
		ReconciledAt:    m.reconciled,
		Drifts:          m.drifts,
	}
	for _, g := range m.groups {
		s.Groups = append(s.Groups, m.groupStatusLocked(g))
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
	if m.deposed != nil {
		return m.deposed.Error()
	}
	if err := m.databaseFailureRLocked(); err != nil {
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
		case g.suspect:
			causes = append(causes, fmt.Sprintf("group %s: the database lost its epoch marker or went back in time", g.Name))
		case g.Unconfirmed() > 0:
			causes = append(causes, fmt.Sprintf("group %s: %d records were written back and no BNG has confirmed them yet", g.Name, g.Unconfirmed()))
		}
	}
	slices.Sort(causes)
	return strings.Join(causes, "; ")
}

func (m *Manager) groupStatusLocked(g *group) inspect.GroupStatus {
	quarantined, until := m.engine.Quarantined(g.Name)
	return inspect.GroupStatus{
		Name:        g.Name,
		Subscribers: g.Online(),
		Pending:     m.engine.Pending(g.Name),
		FeedLag:     g.lagLocked(m.now()),
		FeedGaps:    g.gaps,
		FeedFill:    m.store.FeedFill(g.Name),
		Active:      g.In(lifecycle.Saved) + g.In(lifecycle.Open) + g.In(lifecycle.Returned),
		Draining:    g.In(lifecycle.Draining),
		Cut:         g.In(lifecycle.Cut),
		Held:        m.engine.Held(g.Name),

		RemovalsHeld: maps.Clone(g.Held()),

		Quarantined: quarantined, QuarantinedUntil: until,
	}
}

// Reconcile compares database, engine and kernel in full.
func (m *Manager) Reconcile(ctx context.Context, dryRun bool) ([]inspect.Drift, error) {
	if m.NotReady() != nil {
		return nil, fmt.Errorf("%w: %w", inspect.ErrNotReady, m.NotReady())
	}
	drifts, err := m.reconcileAll(ctx, comparison{dryRun: dryRun, audit: true})
	if err != nil {
		return drifts, fmt.Errorf("%w: %w", inspect.ErrUnavailable, err)
	}
	return drifts, nil
}

// Quiet waits until no slot is being worked on and all bindings are stored.
func (m *Manager) Quiet(ctx context.Context) error {
	for {
		m.mu.RLock()
		busy := m.life.Busy() + m.life.Unstored()
		m.mu.RUnlock()
		if busy == 0 {
			return nil
		}
		if err := clock.Sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%d addresses and bindings are being worked on: %w", busy, err)
		}
	}
}
