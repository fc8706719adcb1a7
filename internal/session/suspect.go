package session

import (
	"context"
	"crypto/rand"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// A database is trusted to be complete while it carries the epoch marker that
// was set when it was, and its feed has not gone back in time. One that is not
// trusted is suspect: what is absent from it is written back, not removed (I6).

// suspectLocked reports whether the observed database has lost what this group
// knows to exist. An unmarked database that nothing is known of is a new one.
func (m *Manager) suspectLocked(g *group, o *databaseState) bool {
	switch {
	case g.suspect:
		return true
	case !g.adopted && !o.marked:
		return o.remains
	case !g.adopted:
		return false
	case !o.marked || o.marker.Epoch != g.epoch:
		return g.epoch != ""
	}
	// New entries may be behind the old end already, where the tail hides the loss.
	return o.rewound || subscriber.CompareVersions(o.tail, o.since) < 0
}

// alarmLocked says, once, that the database is suspect.
func (m *Manager) alarmLocked(g *group) {
	if g.suspect {
		return
	}
	g.suspect = true
	m.life.Repairs().Unversion(g.Name)
	m.log.Error("database suspect: it is empty, another one, or has gone back in time; nobody is removed for being absent from it, records are written back from bindings and Interims",
		"group", g.Name, "alarm", "sessiond_database_suspect")
}

// complete writes the bindings into a suspect database, which has got back the lost
// records by then, and marks it as complete. A new database is just marked.
func (m *Manager) complete(ctx context.Context, g *group, o *databaseState, suspect bool, lost int) error {
	if suspect {
		if err := m.storeAll(ctx, g); err != nil {
			return err
		}
	}
	marker := o.marker
	if !o.marked {
		marker = subscriberdb.Marker{Epoch: rand.Text(), CreatedAt: m.now(), Node: m.node}
		if err := m.store.SetMarker(ctx, g.Name, marker); err != nil {
			return err
		}
		if stands, ok, err := m.store.Marker(ctx, g.Name); err != nil || !ok {
			return err // gone again already: the next look finds it missing
		} else {
			marker = stands
		}
	}
	m.trust(g, marker.Epoch, suspect, lost)
	return nil
}

// storeAll writes all bindings of the group and the live settings.
func (m *Manager) storeAll(ctx context.Context, g *group) error {
	var list []nat.Binding
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		list, from = m.bindingsFrom(g.Name, from, list[:0])
		var w writes
		for i := range list {
			w.add(&lifecycle.Write{Binding: list[i]})
		}
		if err := m.store.SaveBindings(ctx, g.Name, w.put, nil); err != nil {
			return err
		}
	}
	m.mu.RLock()
	settings := m.settings
	m.mu.RUnlock()
	return m.store.InitSettings(ctx, formatSettings(settings, inspect.SettingNames()))
}

func (m *Manager) trust(g *group, epoch string, rebuilt bool, lost int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.epoch, g.suspect = epoch, false
	if rebuilt {
		g.stored = nil // lost with the rest
		m.log.Warn("database rebuilt; records written back stay in doubt until their BNG or an expiry confirms them",
			"group", g.Name, "records", lost)
		// Sessions that were stopped before the loss was noticed were not written
		// back. Only a look at the trusted database ends them.
		m.reconcileSoon()
	}
}

// watchEvery is how often the settings and the markers are looked at.
const watchEvery = time.Second

// runWatchdog notices settings changed by others and a database that lost its marker.
// What it cannot read while the database takes writes, twice in a row, keeps the daemon
// from being ready: nobody else complains of that.
func (m *Manager) runWatchdog(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for before := error(nil); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		var err error
		if m.databaseFailure() == nil || before != nil {
			err = m.lookAtDatabase(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || before != nil {
			m.noteDatabase(func() { m.lookErr = err })
		}
		before = err
	}
}

func (m *Manager) lookAtDatabase(ctx context.Context) error {
	for _, g := range m.syncedGroups() {
		marker, ok, err := m.markerOf(ctx, g)
		if err != nil {
			return err
		}
		if !ok || marker.Epoch != m.epochOf(g) {
			m.reconcileSoon()
			return nil // the settings may be lost too
		}
	}
	return m.loadSettings(ctx)
}

// markerOf reads a marker, from a database that does not hang.
func (m *Manager) markerOf(ctx context.Context, g *group) (subscriberdb.Marker, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	return m.store.Marker(ctx, g.Name)
}

func (m *Manager) epochOf(g *group) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return g.epoch
}
