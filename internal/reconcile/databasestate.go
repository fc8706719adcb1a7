package reconcile

import (
	"context"

	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// databaseState tells whether a group's database is the one that the engine
// knows.
type databaseState struct {
	marker  subscriberdb.Marker
	marked  bool   // the database has its epoch marker
	epoch   string // trusted by the group before anything was read
	since   string // the engine's position in the feed before anything was read
	tail    string // end of the feed before the records are read
	rewound bool   // the feed lost the engine's position, and not by trimming
	remains bool   // the group is not adopted, and has bindings or kernel entries, but no marker
}

// lookAt reads the database state of a group.
func (r *Reconciler) lookAt(ctx context.Context, g *Group) (*databaseState, error) {
	l := &databaseState{}
	l.since, l.epoch = r.trustOf(g)
	var err error
	if l.marker, l.marked, err = r.store.Marker(ctx, g.Name); err != nil {
		return nil, err
	}
	if l.tail, err = r.store.Tail(ctx, g.Name); err != nil {
		return nil, err
	}
	if l.since != "" {
		l.rewound, err = r.store.RolledBack(ctx, g.Name, l.since)
	} else if !l.marked {
		l.remains, err = r.remains(ctx, g)
	}
	return l, err
}

// remains reports whether anything of a group is stored or programmed.
func (r *Reconciler) remains(ctx context.Context, g *Group) (bool, error) {
	rows := 0
	err := r.store.BindingRows(ctx, g.Name, func(some []subscriberdb.BindingRow) error {
		rows += len(some)
		return nil
	})
	if err != nil || rows > 0 {
		return rows > 0, err
	}
	if err := r.kernel.LearnRest(ctx); err != nil {
		return false, err
	}
	return r.holdsMore(ctx, g), nil
}
