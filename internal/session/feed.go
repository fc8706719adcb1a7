package session

import (
	"context"
	"errors"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/reconcile"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

const (
	feedBatch = 50          // feed entries read at once; each has up to 64 changes
	feedBlock = time.Second // maximum wait of one read for the next change

	// gatherTime is the pause after a small batch, so that the next round trip
	// carries more changes. Nothing waits before the first batch. After busyBatch
	// or more the pause is busyTime, because rounds are expensive then. After
	// fullBatch there is no pause: more work is waiting than a pause would gather.
	gatherTime = 2 * time.Millisecond
	busyTime   = 4 * time.Millisecond
	busyBatch  = 16
	fullBatch  = 512
)

// feedStore has the change feeds of the groups.
type feedStore interface {
	Tail(ctx context.Context, group string) (string, error)
	Feed(ctx context.Context, group, after string, limit int, block time.Duration, room []subscriber.Change) ([]subscriber.Change, string, error)
	TellPosition(ctx context.Context, group, reader, entry string) error
}

// readyKernel reports when the conntrack entries are known.
type readyKernel interface {
	Ready() <-chan struct{} // closed when they are
}

// feedFollower applies the changes of all groups, in the order of their feeds.
type feedFollower struct {
	*sharedState
	store      feedStore
	node       string
	kernel     readyKernel
	health     *databaseHealth
	served     *servedGroups
	reports    *reports
	natLog     *natLogKeeper
	reconciler *reconcile.Reconciler
}

// follow keeps one group in step with its change feed. After a gap in the feed,
// or an outage of the database, it compares everything.
func (f *feedFollower) follow(ctx context.Context, g *group) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.kernel.Ready():
	}
	for {
		err := f.health.Retry(ctx, "read group "+g.Name+" from the database", func(ctx context.Context) error {
			if err := f.served.keep(ctx, g, false); err != nil || ctx.Err() != nil {
				return f.noteSync(g, errors.Join(err, ctx.Err())) // Served is stored before any of it can be used
			}
			return f.noteSync(g, f.sync(ctx, g))
		})
		if err != nil {
			return err
		}
		err = f.readFeed(ctx, g)
		f.unfollowed(g)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, subscriberdb.ErrFeedGap):
			f.gapFound(g)
		default:
			f.log.Log(ctx, f.health.Severity(ctx), "change feed interrupted", "group", g.Name, "error", err)
		}
	}
}

// sync takes a group up, which sets the position to read its feed from.
func (f *feedFollower) sync(ctx context.Context, g *group) error {
	if err := f.health.probe(ctx); err != nil {
		return err // nothing could be repaired, even if reads work
	}
	return f.reconciler.Resume(ctx, g.Group)
}

// TakenUpLocked implements reconcile.Feed. Watchers have missed changes that were found by
// the comparison, unless this is the start.
func (f *feedFollower) TakenUpLocked(name string) {
	if g := f.groups[name]; g != nil {
		g.followed = true
		if f.reports.places.movedLocked(); g.takenUp {
			f.reports.loseLocked(name)
		}
		g.takenUp = true
		f.natLog.ask(name)
		f.settleLocked()
	}
}

// CaughtUp implements reconcile.Feed.
func (f *feedFollower) CaughtUp(ctx context.Context, name, entry string) bool {
	f.mu.RLock()
	g := f.groups[name]
	f.mu.RUnlock()
	return g != nil && f.caughtUp(ctx, g, entry, true)
}

// readFeed applies changes until the feed fails.
func (f *feedFollower) readFeed(ctx context.Context, g *group) error {
	var room []subscriber.Change
	var told positionTold
	for wait := feedBlock; ; {
		changes, last, err := f.store.Feed(ctx, g.Name, f.positionOf(g), feedBatch, wait, room)
		if err != nil {
			return err
		}
		f.apply(g, changes, last)
		f.tellPosition(ctx, g, &told)
		n := len(changes)
		clear(changes)
		room = changes // nil when the feed is idle, so that a storm's memory is freed
		if wait = feedBlock; n >= busyBatch {
			wait = 0 // reads the entries that have gathered meanwhile
		}
		if err := gatherMore(ctx, n); err != nil {
			return err
		}
	}
}

// gatherMore pauses after a batch of the given size, so that more work gathers,
// unless a full batch waits already.
func gatherMore(ctx context.Context, done int) error {
	switch {
	case done == 0 || done >= fullBatch:
		return ctx.Err()
	case done >= busyBatch:
		return clock.Sleep(ctx, busyTime)
	}
	return clock.Sleep(ctx, gatherTime)
}

// gapFound records that the group's feed has lost unread entries: they were
// trimmed before they were read, or the database is another one.
func (f *feedFollower) gapFound(g *group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.gaps++
	f.log.Error("change feed has lost what was not read yet, everything is compared instead",
		"group", g.Name, "alarm", "sessiond_feed_gaps_total")
}

// Intervals at which the position is written to the database, which keeps the
// entries behind it: tellEvery while it moves, tellAlive as a sign of life.
const (
	tellEvery = time.Second
	tellAlive = 5 * time.Second
)

// positionTold is the last position written to the database.
type positionTold struct {
	entry string
	at    time.Time
}

// tellPosition writes the group's position to the database at intervals. A
// failed write is repeated at the next one; until then the feed keeps more than
// necessary.
func (f *feedFollower) tellPosition(ctx context.Context, g *group, told *positionTold) {
	entry, since := f.positionOf(g), time.Since(told.at)
	if since < tellEvery || entry == told.entry && since < tellAlive {
		return
	}
	told.at = time.Now()
	if f.store.TellPosition(ctx, g.Name, f.node, entry) == nil {
		told.entry = entry
	}
}

// noteSync keeps, for readiness, the reason that a group could not be taken up.
func (f *feedFollower) noteSync(g *group, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.failure = err
	return err
}

// apply applies changes in feed order.
func (f *feedFollower) apply(g *group, changes []subscriber.Change, last string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.groups[g.Name] != g {
		return // forgotten meanwhile
	}
	now := f.now()
	f.reports.tellBesideLocked(g, now)
	watched := f.reports.events.Watched() // no watch begins while the lock is held
	for i := range changes {
		if watched {
			f.reports.places.applyingLocked(g, &changes[i])
		}
		f.life.Apply(&changes[i], now)
	}
	if last != g.Position {
		g.Position = last
		g.tellMovedLocked()
		f.reports.places.appliedLocked()
	}
}

// unfollowed records that the group's feed is not read until it is taken up
// again.
func (f *feedFollower) unfollowed(g *group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.followed = false
	g.tellMovedLocked()
	f.reports.places.movedLocked()
}

// tellMovedLocked wakes the callers that wait for the position to change.
func (g *group) tellMovedLocked() {
	close(g.moved)
	g.moved = make(chan struct{})
}

// takenWithin bounds the wait for a change made here to come back through the
// feed.
const takenWithin = 2 * time.Second

// await waits, for a bounded time, until the group's feed was taken up to id.
func (f *feedFollower) await(ctx context.Context, g *group, id string) {
	ctx, cancel := context.WithTimeout(ctx, takenWithin)
	defer cancel()
	f.caughtUp(ctx, g, id, false)
}

// caughtUp waits until the group's feed was taken up to id, and reports whether
// that happened before ctx ended. With followed set, it gives up when the feed
// is not followed: the caller must not wait for it to be taken up again.
func (f *feedFollower) caughtUp(ctx context.Context, g *group, id string, followed bool) bool {
	for {
		f.mu.RLock()
		there, lost, moved := subscriber.CompareVersions(g.Position, id) >= 0, followed && !g.followed, g.moved
		f.mu.RUnlock()
		if there || lost {
			return there
		}
		select {
		case <-ctx.Done():
			return false
		case <-moved:
		}
	}
}

// awaitTails waits, for a bounded time, until all feeds were taken to their
// present ends.
func (f *feedFollower) awaitTails(ctx context.Context) {
	for _, g := range f.syncedGroups() {
		if tail, err := f.store.Tail(ctx, g.Name); err == nil {
			f.await(ctx, g, tail)
		}
	}
}
