package session

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// Whether accounting can be recorded has one answer, that of the store's Probe: for
// readiness, redis_up, gRPC health and Status-Server.

// Timing of probes.
const (
	probeEvery = 500 * time.Millisecond
	probeAgain = 250 * time.Millisecond // after one that failed
	probeRest  = 100 * time.Millisecond // behind each, whatever commits say
)

// errNotAsked is why the database cannot be used before it was asked.
var errNotAsked = errors.New("not asked yet")

// runProbes probes the database. A commit that fails has it done at once.
func (m *Manager) runProbes(ctx context.Context) error {
	for {
		wait := probeEvery
		if m.probe(ctx) != nil {
			wait = probeAgain
		}
		if err := clock.Sleep(ctx, probeRest); err != nil {
			return err
		}
		rest := time.NewTimer(wait - probeRest)
		select {
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		case <-m.store.Trouble():
			rest.Stop()
		case <-rest.C:
		}
	}
}

// probe asks the database whether accounting can be recorded, and keeps the answer.
func (m *Manager) probe(ctx context.Context) error {
	err := m.store.Probe(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.noteDatabase(func() { m.redisErr = err })
	return err
}

// databaseFailure says why the database cannot be used now; nil when it can.
func (m *Manager) databaseFailure() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.databaseFailureRLocked()
}

func (m *Manager) databaseFailureRLocked() error {
	if m.redisErr != nil {
		return m.redisErr
	}
	return m.lookErr
}

// noteDatabase lets note change what is known of the database, and says, once for each
// change, whether it can be used. A database that comes back may be another one, or
// have gone back in time: it is compared soon.
func (m *Manager) noteDatabase(note func()) {
	m.mu.Lock()
	before := m.databaseFailureRLocked()
	note()
	now, since := m.databaseFailureRLocked(), m.failingSince
	if before == nil && now != nil || errors.Is(before, errNotAsked) {
		m.failingSince = m.now()
	}
	m.mu.Unlock()
	switch {
	case now != nil && (before == nil || errors.Is(before, errNotAsked)):
		m.log.Warn("database cannot be used, accounting is not answered until it can", "err", now, "alarm", "sessiond_redis_up")
	case now == nil && before != nil && !errors.Is(before, errNotAsked):
		m.log.Info("database can be used again", "after", m.now().Sub(since).Round(time.Millisecond).String())
		m.reconcileSoon()
	}
}

// storeSeverity is how bad it is that something failed for want of the database: if
// that cannot be used, it was said already.
func (m *Manager) storeSeverity(ctx context.Context) slog.Level {
	if m.databaseFailure() != nil || m.probe(ctx) != nil {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// retryStore is insist for what needs the database.
func (m *Manager) retryStore(ctx context.Context, what string, try func(context.Context) error) error {
	return m.retryLogged(ctx, what, try, m.storeSeverity)
}
