package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// accountingProbe reports whether the database can record accounting.
type accountingProbe interface {
	Probe(ctx context.Context) error // an error if accounting cannot be recorded; takes about a second at most
	Trouble() <-chan struct{}        // receives after a failed commit of accounting
}

// databaseHealth keeps whether accounting can be recorded. The store's Probe
// gives the one answer for readiness, redis_up, gRPC health and Status-Server.
type databaseHealth struct {
	store accountingProbe
	log   *slog.Logger
	now   func() time.Time
	back  func() // called when the database can be used again

	mu           sync.Mutex
	probeErr     error     // result of the last probe; nil if accounting can be recorded
	lookErr      error     // settings or markers cannot be read although the probe succeeds
	failingSince time.Time // since when either error is set
}

// Intervals of probes.
const (
	probeEvery = 500 * time.Millisecond
	probeAgain = 250 * time.Millisecond // after a failed one
	probeRest  = 100 * time.Millisecond // minimum between two, also after failed commits
)

// errNotAsked is the state of the database before the first probe.
var errNotAsked = errors.New("not asked yet")

// run probes the database periodically, and at once after a failed commit.
func (h *databaseHealth) run(ctx context.Context) error {
	for {
		wait := probeEvery
		if h.probe(ctx) != nil {
			wait = probeAgain
		}
		if err := clock.Sleep(ctx, probeRest); err != nil {
			return err
		}
		if _, err := clock.SleepOr(ctx, wait-probeRest, h.store.Trouble()); err != nil {
			return err
		}
	}
}

// probe asks the database whether accounting can be recorded, and keeps the answer.
func (h *databaseHealth) probe(ctx context.Context) error {
	err := h.store.Probe(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.note(&h.probeErr, err)
	return err
}

// looked keeps the result of reading settings and markers.
func (h *databaseHealth) looked(err error) { h.note(&h.lookErr, err) }

// failure returns the reason that the database cannot be used; nil if it can.
func (h *databaseHealth) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failureLocked()
}

func (h *databaseHealth) failureLocked() error {
	if h.probeErr != nil {
		return h.probeErr
	}
	return h.lookErr
}

// note keeps a result, and logs each change between usable and unusable. A
// database that returns may be another one, or have gone back in time, so back
// starts a comparison.
func (h *databaseHealth) note(answer *error, err error) {
	h.mu.Lock()
	before := h.failureLocked()
	*answer = err
	now, since := h.failureLocked(), h.failingSince
	if before == nil && now != nil || errors.Is(before, errNotAsked) {
		h.failingSince = h.now()
	}
	h.mu.Unlock()
	switch {
	case now != nil && (before == nil || errors.Is(before, errNotAsked)):
		h.log.Warn("database cannot be used, accounting is not answered until it can", "error", now, "alarm", "sessiond_redis_up")
	case now == nil && before != nil && !errors.Is(before, errNotAsked):
		h.log.Info("database can be used again", "after", h.now().Sub(since).Round(time.Millisecond).String())
		h.back()
	}
}

// Severity returns the log level for a failure that the database may have
// caused: Debug if the database cannot be used, because that is logged already.
func (h *databaseHealth) Severity(ctx context.Context) slog.Level {
	if h.failure() != nil || h.probe(ctx) != nil {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// Retry is [retry] for tasks that need the database.
func (h *databaseHealth) Retry(ctx context.Context, what string, try func(context.Context) error) error {
	return retry(ctx, h.log, what, h.Severity, try)
}

// watchEvery is the interval at which settings and markers are read.
const watchEvery = time.Second

// markerStore reads the epoch markers of the groups.
type markerStore interface {
	Marker(ctx context.Context, group string) (subscriberdb.Marker, bool, error)
}

// watchdog detects settings that others changed, and a database that lost its
// marker.
type watchdog struct {
	*sharedState
	store       markerStore
	health      *databaseHealth
	settings    *liveSettings
	compareSoon func()
}

// run reads settings and markers every watchEvery. If they cannot be read twice
// in a row although the database takes writes, the daemon is not ready: no
// other check reports that.
func (w *watchdog) run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for before := error(nil); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		var err error
		if w.health.failure() == nil || before != nil {
			err = w.look(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || before != nil {
			w.health.looked(err)
		}
		before = err
	}
}

func (w *watchdog) look(ctx context.Context) error {
	for _, g := range w.syncedGroups() {
		marker, ok, err := w.markerOf(ctx, g)
		if err != nil {
			return err
		}
		if !ok || marker.Epoch != w.epochOf(g) {
			w.compareSoon()
			return nil // the settings may be lost too
		}
	}
	return w.settings.Load(ctx)
}

// markerOf reads a marker, within watchEvery.
func (w *watchdog) markerOf(ctx context.Context, g *group) (subscriberdb.Marker, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	return w.store.Marker(ctx, g.Name)
}
