package reconcile

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
)

// A Group is the state of comparisons of one group, guarded by the lock around
// the life cycle.
type Group struct {
	*lifecycle.Group
	Position string // last feed entry taken; "" before the first

	epoch     string                // epoch marker of the trusted database
	suspect   bool                  // the database lost its marker or went back in time
	adopted   bool                  // kernel and stored bindings were taken over
	attempted bool                  // adoption has begun
	synced    bool                  // compared at least once
	early     []absentKey           // absences found before the first comparison
	begin     int                   // index of the first look of the paced pass: the one that failed last time; used by that pass alone
	gone      map[netip.Addr]uint64 // tenures without a record in the newest comparison
}

// NewGroup returns a group without subscribers.
func NewGroup(c lsn.GroupConfig, limits guard.Limits) *Group {
	return &Group{Group: lifecycle.NewGroup(c, limits)}
}

// Epoch returns the epoch marker of the trusted database; "" if none is
// trusted.
func (g *Group) Epoch() string { return g.epoch }

// Suspect reports whether the database lost its marker or went back in time.
func (g *Group) Suspect() bool { return g.suspect }

// Adopted reports whether kernel and stored bindings were taken over.
func (g *Group) Adopted() bool { return g.adopted }

// Synced reports whether the group was compared at least once.
func (g *Group) Synced() bool { return g.synced }
