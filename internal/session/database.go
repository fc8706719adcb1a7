package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// accountingProbe tells whether the database can take accounting.
type accountingProbe interface {
	Probe(ctx context.Context) error // why accounting cannot be recorded, within about a second
	Trouble() <-chan struct{}        // tells that a commit of accounting failed
}

// databaseHealth keeps whether accounting can be recorded. There is one answer, that of the
// store's Probe: for readiness, redis_up, gRPC health and Status-Server.
type databaseHealth struct {
	store accountingProbe
	log   *slog.Logger
	now   func() time.Time
	back  func() // is called when the database can be used again

	mu           sync.Mutex
	probeErr     error     // why accounting cannot be recorded now; nil when it can
	lookErr      error     // why settings or markers cannot be read all the same
	failingSince time.Time // when one of the two began
}

// Timing of probes.
const (
	probeEvery = 500 * time.Millisecond
	probeAgain = 250 * time.Millisecond // after one that failed
	probeRest  = 100 * time.Millisecond // behind each, whatever commits say
)

// errNotAsked is why the database cannot be used before it was asked.
var errNotAsked = errors.New("not asked yet")

// run probes the database. A commit that fails has it done at once.
func (h *databaseHealth) run(ctx context.Context) error {
	for {
		wait := probeEvery
		if h.probe(ctx) != nil {
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
		case <-h.store.Trouble():
			rest.Stop()
		case <-rest.C:
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

// looked keeps why settings or markers cannot be read, nil if they can.
func (h *databaseHealth) looked(err error) { h.note(&h.lookErr, err) }

// failure says why the database cannot be used now; nil when it can.
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

// note keeps an answer, and says, once for each change, whether the database can be used.
// One that comes back may be another one, or have gone back in time: it is compared soon.
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

// Severity is how bad it is that something failed for want of the database: if that
// cannot be used, it was said already.
func (h *databaseHealth) Severity(ctx context.Context) slog.Level {
	if h.failure() != nil || h.probe(ctx) != nil {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// Retry is [retry] for what needs the database.
func (h *databaseHealth) Retry(ctx context.Context, what string, try func(context.Context) error) error {
	return retryLogged(ctx, h.log, what, try, h.Severity)
}
