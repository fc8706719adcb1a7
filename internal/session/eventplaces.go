package session

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// eventPlaces knows how far the events have come in the feeds of the groups, which every
// event tells its watchers. The Manager's lock guards it.
type eventPlaces struct {
	*sharedState
	shared atomic.Pointer[[]inspect.FeedPosition] // of the groups that are followed; nil after a change

	change  *subscriber.Change   // is being applied; nil for none
	before  inspect.FeedPosition // before that change, in its batch
	applied inspect.FeedPosition // behind it
}

// movedLocked forgets the positions: one has changed, or a group came or went.
func (p *eventPlaces) movedLocked() { p.shared.Store(nil) }

// applyingLocked says which change of a group is applied now.
func (p *eventPlaces) applyingLocked(g *group, c *subscriber.Change) {
	p.before, p.change = p.applied, c
	if p.applied.Entry != c.ID {
		p.applied = inspect.FeedPosition{Group: g.Name, Epoch: inspect.EpochSum(g.Epoch()), Entry: c.ID}
	}
	p.applied.Changes++
}

// appliedLocked ends a batch of changes, after which the group's position has moved.
func (p *eventPlaces) appliedLocked() {
	p.change, p.before, p.applied = nil, inspect.FeedPosition{}, inspect.FeedPosition{}
	p.movedLocked()
}

// behindRLocked returns the positions behind an event of that kind. An end that the change
// being applied implies, but is not, comes before the change: it has events of its own.
func (p *eventPlaces) behindRLocked(kind inspect.EventKind) inspect.FeedPositions {
	f := inspect.FeedPositions{Shared: p.listRLocked(), Own: p.applied}
	if kind == inspect.EventDeleted && p.change != nil && p.change.Kind != subscriber.Deleted {
		f.Own = p.before
	}
	return f
}

// besideFeed says whether watchers know of the changes beside the feed of one group. For each
// gap they may list the whole group, so they get one in besideRest.
type besideFeed struct {
	untold bool      // there are changes since the last gap
	toldAt time.Time // that gap
}

const besideRest = 10 * time.Second

// besideFeedLocked reports whether an event is a change of a record that a comparison made,
// although the feed of its group is followed: so it is neither before nor behind a place there.
func (p *eventPlaces) besideFeedLocked(kind inspect.EventKind, group string) bool {
	if p.change != nil || !inspect.RecordKinds.Has(kind) {
		return false
	}
	g := p.groups[group]
	return g != nil && g.followed
}

// listRLocked returns the positions of the groups that are followed, by name.
func (p *eventPlaces) listRLocked() []inspect.FeedPosition {
	if list := p.shared.Load(); list != nil {
		return *list
	}
	var list []inspect.FeedPosition
	for _, g := range p.groups {
		if g.followed {
			list = append(list, inspect.FeedPosition{
				Group: g.Name, Epoch: inspect.EpochSum(g.Epoch()), Entry: subscriber.ParseVersion(g.Position),
			})
		}
	}
	slices.SortFunc(list, func(a, b inspect.FeedPosition) int { return strings.Compare(a.Group, b.Group) })
	p.shared.Store(&list)
	return list
}
