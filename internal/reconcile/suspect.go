package reconcile

import (
	"context"
	"crypto/rand"
	"net/netip"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// A database is trusted to be complete while it has the epoch marker that was
// set when it was complete, and its feed has not gone back in time. Otherwise
// it is suspect: records and bindings absent from it are written back, not
// removed (I6).

// suspectLocked reports whether the observed database has lost known data of
// this group. An unmarked database without known data is a new one.
func (r *Reconciler) suspectLocked(g *Group, o *databaseState) bool {
	switch {
	case g.suspect:
		return true
	case !g.adopted && !o.marked:
		return o.remains
	case !g.adopted:
		return false
	case o.epoch != g.epoch: // another comparison has completed the database since
		return false
	case !o.marked || o.marker.Epoch != g.epoch:
		return g.epoch != ""
	}
	// New entries may extend beyond the old end already, so that the tail hides
	// the loss.
	return o.rewound || subscriber.CompareVersions(o.tail, o.since) < 0
}

// alarmLocked marks the database as suspect, and logs that once.
func (r *Reconciler) alarmLocked(g *Group) {
	if g.suspect {
		return
	}
	g.suspect = true
	r.life.Repairs().Unversion(g.Name)
	r.log.Error("database suspect: it is empty, another one, or has gone back in time; nobody is removed for being absent from it, records are written back from bindings and Interims",
		"group", g.Name, "alarm", "sessiond_database_suspect")
}

// complete stores the bindings in a suspect database, whose lost records were
// written back before, and marks it as complete. A new database is only marked.
func (r *Reconciler) complete(ctx context.Context, g *Group, o *databaseState, suspect bool, lost int) error {
	if suspect {
		if err := r.storeAll(ctx, g); err != nil {
			return err
		}
	}
	marker := o.marker
	if !o.marked {
		marker = subscriberdb.Marker{Epoch: rand.Text(), CreatedAt: r.now(), Node: r.node}
		if err := r.store.SetMarker(ctx, g.Name, marker); err != nil {
			return err
		}
		if stands, ok, err := r.store.Marker(ctx, g.Name); err != nil || !ok {
			return err // gone again: the next look finds it missing
		} else {
			marker = stands
		}
	}
	r.trust(g, marker.Epoch, suspect, lost)
	return nil
}

// storeAll writes all bindings and mappings of the group, and the live settings.
func (r *Reconciler) storeAll(ctx context.Context, g *Group) error {
	var list []nat.Binding
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		list, from = r.bindingsFrom(g.Name, from, list[:0])
		if err := r.store.SaveBindings(ctx, g.Name, list, nil); err != nil {
			return err
		}
	}
	if err := r.mappings.StoreAll(ctx, g.Name); err != nil {
		return err
	}
	return r.settings.StoreAll(ctx)
}

func (r *Reconciler) trust(g *Group, epoch string, rebuilt bool, lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.epoch, g.suspect = epoch, false
	if rebuilt {
		r.served.RebuiltLocked(g.Name)
		r.log.Warn("database rebuilt; records written back stay in doubt until their BNG or an expiry confirms them",
			"group", g.Name, "records", lost)
		// Sessions that stopped before the loss was noticed were not written back.
		// Only a comparison with the trusted database ends them.
		r.Soon()
	}
}
