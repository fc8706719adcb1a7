package reconcile

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
)

// A Group is what a comparison knows of one group, guarded by the lock around the life cycle.
type Group struct {
	*lifecycle.Group
	Position string // last feed entry taken; "" before the first

	epoch     string                // epoch marker of the database that is trusted
	suspect   bool                  // the database lost its marker or went back in time
	adopted   bool                  // kernel and stored bindings were taken over
	attempted bool                  // that was begun
	synced    bool                  // compared at least once
	early     []absentKey           // noticed before that
	begin     int                   // which look the paced pass begins with: the one that failed in the last; used by that pass alone
	gone      map[netip.Addr]uint64 // tenures that the newest comparison found without a record
}

// NewGroup returns a group with nobody in it.
func NewGroup(c lsn.GroupConfig, limits guard.Limits) *Group {
	return &Group{Group: lifecycle.NewGroup(c, limits)}
}

// Epoch returns the epoch marker of the database that is trusted; "" while none is.
func (g *Group) Epoch() string { return g.epoch }

// Suspect reports whether the database lost its marker or went back in time.
func (g *Group) Suspect() bool { return g.suspect }

// Adopted reports whether kernel and stored bindings were taken over.
func (g *Group) Adopted() bool { return g.adopted }

// Synced reports whether the group was compared at least once.
func (g *Group) Synced() bool { return g.synced }
