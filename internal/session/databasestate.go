package session

import (
	"context"

	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// databaseState is a group's database as a whole: whether it is the one that the engine knows.
type databaseState struct {
	marker  subscriberdb.Marker
	marked  bool   // the database has its epoch marker
	since   string // where the engine stood in the feed before anything was read
	tail    string // end of the feed before the records are read
	rewound bool   // the feed has lost where the engine stood, and not by trimming
	remains bool   // of a group not adopted yet: bindings or kernel elements are there without a marker
}

// lookAt reads what tells whether a group's database can be trusted.
func (m *Manager) lookAt(ctx context.Context, g *group) (*databaseState, error) {
	l := &databaseState{since: m.positionOf(g)}
	var err error
	if l.marker, l.marked, err = m.store.Marker(ctx, g.Name); err != nil {
		return nil, err
	}
	if l.tail, err = m.store.Tail(ctx, g.Name); err != nil {
		return nil, err
	}
	if l.since != "" {
		l.rewound, err = m.store.RolledBack(ctx, g.Name, l.since)
	} else if !l.marked {
		l.remains, err = m.remains(ctx, g)
	}
	return l, err
}

// remains reports whether anything of a group is stored or programmed.
func (m *Manager) remains(ctx context.Context, g *group) (bool, error) {
	rows := 0
	err := m.store.BindingRows(ctx, g.Name, func(some []subscriberdb.BindingRow) error {
		rows += len(some)
		return nil
	})
	if err != nil || rows > 0 {
		return rows > 0, err
	}
	if err := m.kernel.LearnRest(ctx); err != nil {
		return false, err
	}
	return m.holdsMore(ctx, g), nil
}
