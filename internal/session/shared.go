package session

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/reconcile"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// sharedState is the state that the parts of a Manager share: the life cycle
// and the groups, and the lock around both.
type sharedState struct {
	log *slog.Logger
	now func() time.Time

	reconciling sync.Mutex // serializes comparisons; taken before mu

	mu      wakingLock
	life    *lifecycle.Machine
	groups  map[string]*group
	settled bool          // every group was reconciled once
	ready   chan struct{} // closed when settled
}

// group is the state of one LSN group.
type group struct {
	*reconcile.Group
	failure  error // of the last attempt to take it up
	moved    chan struct{}
	followed bool                 // the feed is being read, from its position on
	unread   unread               // how far the position was behind at the last look
	gaps     int                  // times the feed had lost unread entries
	shortage poolShortage         // the last log line about an exhausted pool
	cancel   context.CancelFunc   // stops reading the feed
	stored   *subscriberdb.Served // the Served in the database, if known
}

// addGroupLocked adds a group to serve. New calls it without the lock, because
// no one else has the Manager yet.
func (s *sharedState) addGroupLocked(c lsn.GroupConfig, limits guard.Limits) *group {
	g := &group{Group: reconcile.NewGroup(c, limits), moved: make(chan struct{})}
	s.groups[c.Name] = g
	s.life.Groups().Add(g.Group.Group)
	return g
}

// restored reports whether the daemon has been ready.
func (s *sharedState) restored() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.settled
}

// groupOfRLocked returns the group whose prefixes contain an inside address,
// nil for none.
func (s *sharedState) groupOfRLocked(inside netip.Addr) *group {
	if g := s.life.Groups().Of(inside); g != nil {
		return s.groups[g.Name]
	}
	return nil
}

// settleLocked closes Ready once all groups are synced and no slot is busy.
func (s *sharedState) settleLocked() {
	if s.settled || s.life.Busy() > 0 {
		return
	}
	for _, g := range s.groups {
		if !g.Synced() {
			return
		}
	}
	s.settled = true
	close(s.ready)
	s.log.Info("restored and reconciled", "subscribers", s.life.Slots().Len())
}

// NamedRLocked implements reconcile.Groups.
func (s *sharedState) NamedRLocked(name string) *reconcile.Group {
	if g := s.groups[name]; g != nil {
		return g.Group
	}
	return nil
}

// AllRLocked implements reconcile.Groups.
func (s *sharedState) AllRLocked() []*reconcile.Group {
	groups := make([]*reconcile.Group, 0, len(s.groups))
	for _, g := range s.groups {
		groups = append(groups, g.Group)
	}
	return groups
}

// syncedGroups returns the groups that were reconciled once.
func (s *sharedState) syncedGroups() []*group {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var groups []*group
	for _, g := range s.groups {
		if g.Synced() {
			groups = append(groups, g)
		}
	}
	return groups
}

// positionOf returns the last entry of the group's feed that was taken.
func (s *sharedState) positionOf(g *group) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return g.Position
}

// epochOf returns the epoch marker of the database that the group trusts.
func (s *sharedState) epochOf(g *group) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return g.Epoch()
}
