package session

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/subscriberdb"
)

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
