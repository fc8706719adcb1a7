package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// watchStore reads the feeds again, for watchers that come back.
type watchStore interface {
	Tail(ctx context.Context, group string) (string, error)
	Feed(ctx context.Context, group, after string, limit int, block time.Duration, room []subscriber.Change) ([]subscriber.Change, string, error)
	FeedEntry(ctx context.Context, group, entry string) ([]subscriber.Change, error)
}

// eventWatches serves watchers, also those that go on at a position that they got before.
// Where the events behind it are not kept any more, in another run of the daemon for
// instance, it reads the changes of records from the feeds, and tells the watcher that the
// other events are missing.
type eventWatches struct {
	*sharedState
	store     watchStore
	readiness *readiness
	reports   *reports
	follower  *feedFollower
	reads     chan struct{} // has room for the reads of feeds at a time
}

// readsAtOnce bounds the reads of feeds for watchers at a time, because after a restart all
// of them come back at once.
const readsAtOnce = 2

// Watch returns the events of matching subscribers from now on, or behind a position.
func (v *Backend) Watch(ctx context.Context, w inspect.Watch) (iter.Seq2[inspect.Message, error], error) {
	e := v.watches
	e.mu.RLock()
	live, err := e.reports.watchRLocked(ctx, w)
	e.mu.RUnlock()
	if gone := (*inspect.NotKeptError)(nil); errors.As(err, &gone) {
		return e.resume(ctx, w, gone)
	}
	return live, err
}

// watchRLocked begins a watch of the events that are kept.
func (r *reports) watchRLocked(ctx context.Context, w inspect.Watch) (iter.Seq2[inspect.Message, error], error) {
	return r.events.Watch(ctx, w, inspect.FeedPositions{Shared: r.places.listRLocked()})
}

// resume goes on behind a position whose events are not kept.
func (e *eventWatches) resume(ctx context.Context, w inspect.Watch, gone *inspect.NotKeptError) (iter.Seq2[inspect.Message, error], error) {
	if err := e.catchUp(ctx, &w); err != nil {
		return nil, err
	}
	gap := inspect.Gap{Cause: inspect.GapBehind, Missed: gone.Missed}
	if gone.Restarted {
		gap.Cause = inspect.GapRestarted
	}
	after := *w.After
	w.After = nil
	e.mu.RLock()
	to := inspect.Position{Feeds: e.reports.places.listRLocked()}
	ways, known := e.waysRLocked(&w, &after, &to)
	live, err := e.reports.watchRLocked(ctx, w)
	e.mu.RUnlock()
	switch {
	case err != nil:
		return nil, err
	case !known:
		gap.ListAgain = true
		fallthrough
	case !w.Kinds.Within(inspect.RecordKinds):
		if !w.Gaps {
			return nil, fmt.Errorf("%w: %w", inspect.ErrListAgain, gone)
		}
	}
	return func(yield func(inspect.Message, error) bool) {
		if known {
			if !w.Kinds.Within(inspect.RecordKinds) && !yield(inspect.Message{Gap: &gap, Position: after}, nil) {
				return
			}
			r := feedReplay{eventWatches: e, watch: &w, at: after}
			switch err := r.run(ctx, ways, yield); {
			case errors.Is(err, errLeft):
				return
			case errors.Is(err, inspect.ErrListAgain) && w.Gaps:
				gap = inspect.Gap{Cause: inspect.GapFeed, ListAgain: true}
			case err != nil:
				yield(inspect.Message{}, err)
				return
			}
		}
		if gap.ListAgain {
			live = gap.Before(live)
		}
		live(yield)
	}, nil
}

// concerned reports whether a watch may have events of a group.
func concerned(w *inspect.Watch, group string) bool {
	return w.Filter.Group == "" || w.Filter.Group == group
}

// catchUp waits until the feeds that concern the watch were taken as far as they go now, so
// that no change is left that was read with the records at a start, and is no event.
func (e *eventWatches) catchUp(ctx context.Context, w *inspect.Watch) error {
	e.mu.RLock()
	err := e.readiness.restoredRLocked()
	e.mu.RUnlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, takenWithin)
	defer cancel()
	for _, g := range e.syncedGroups() {
		if !concerned(w, g.Name) {
			continue
		}
		tail, err := e.tail(ctx, g)
		if err != nil {
			return unavailable(err)
		}
		if !e.follower.caughtUp(ctx, g, tail, true) {
			return fmt.Errorf("%w: the change feed of group %s is not followed", inspect.ErrUnavailable, g.Name)
		}
	}
	return nil
}

// tail returns the end of a group's feed, which it reads when it is its turn.
func (e *eventWatches) tail(ctx context.Context, g *group) (string, error) {
	select {
	case e.reads <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-e.reads }()
	return e.store.Tail(ctx, g.Name)
}

// feedWay is a part of a feed.
type feedWay struct{ from, to inspect.FeedPosition }

// waysRLocked returns the parts of the feeds between two positions, for the groups of the
// watch; known is false if the feeds do not lead from one to the other.
func (e *eventWatches) waysRLocked(w *inspect.Watch, from, to *inspect.Position) (ways []feedWay, known bool) {
	for _, f := range from.Feeds {
		if _, served := e.groups[f.Group]; concerned(w, f.Group) && !served {
			return nil, false
		}
	}
	for name := range e.groups {
		if !concerned(w, name) {
			continue
		}
		was, ok := from.FeedOf(name)
		is, follows := to.FeedOf(name)
		switch {
		case !ok, !follows, was.Epoch != is.Epoch, was.Entry.Compare(is.Entry) > 0:
			return nil, false
		case was.Entry == is.Entry && was.Changes == 0:
		case was.Entry == (subscriber.Version{}): // the feed has no entry that proves it whole
			return nil, false
		default:
			ways = append(ways, feedWay{was, is})
		}
	}
	return ways, true
}
