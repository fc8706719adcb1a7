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
	feedBatch = 50          // feed entries taken in one go; each tells of up to 64 changes
	feedBlock = time.Second // how long one read waits for the next change

	// gatherTime lets what follows close behind gather, so that under load one
	// round trip carries more. What comes alone does not wait. busyTime does so
	// behind busyBatch or more: the rounds themselves are dear then. Behind fullBatch
	// there is more to be done than gathers.
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

// readyKernel tells when its sessions are known.
type readyKernel interface {
	Ready() <-chan struct{} // closed then
}

// feedFollower takes the changes of all groups in the order of their feeds.
type feedFollower struct {
	*sharedState
	store      feedStore
	node       string
	kernel     readyKernel
	health     *databaseHealth
	served     *servedGroups
	reconciler *reconcile.Reconciler
}

// follow keeps one group in step with its change feed. A gap in the feed, or a
// database that was away, costs a comparison in full.
func (f *feedFollower) follow(ctx context.Context, g *group) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.kernel.Ready():
	}
	for {
		err := f.health.Retry(ctx, "read group "+g.Name+" from the database", func(ctx context.Context) error {
			if err := f.served.keep(ctx, g, false); err != nil || ctx.Err() != nil {
				return f.noteSync(g, errors.Join(err, ctx.Err())) // what is served is stored before anything of it can be used
			}
			return f.noteSync(g, f.sync(ctx, g))
		})
		if err != nil {
			return err
		}
		err = f.drainFeed(ctx, g)
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

// sync takes a group up, and says where to go on reading its feed.
func (f *feedFollower) sync(ctx context.Context, g *group) error {
	if err := f.health.probe(ctx); err != nil {
		return err // whatever could be read of it, nothing could be mended
	}
	return f.reconciler.TakeUp(ctx, g.Group)
}

// TakenUpLocked implements reconcile.Feed.
func (f *feedFollower) TakenUpLocked(name string) {
	if g := f.groups[name]; g != nil {
		g.followed = true
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

// drainFeed takes changes until the feed fails.
func (f *feedFollower) drainFeed(ctx context.Context, g *group) error {
	var room []subscriber.Change
	var told positionTold
	for wait := feedBlock; ; {
		changes, last, err := f.store.Feed(ctx, g.Name, f.positionOf(g), feedBatch, wait, room)
		if err != nil {
			return err
		}
		f.take(g, changes, last)
		f.tellPosition(ctx, g, &told)
		n := len(changes)
		clear(changes)
		room = changes // none where nothing happens: the memory of a storm is not kept
		if wait = feedBlock; n >= busyBatch {
			wait = 0 // for what has gathered meanwhile
		}
		if err := gatherMore(ctx, n); err != nil {
			return err
		}
	}
}

// gatherMore waits a little after something was done, unless there is a full
// batch more to be done.
func gatherMore(ctx context.Context, done int) error {
	switch {
	case done == 0 || done >= fullBatch:
		return ctx.Err()
	case done >= busyBatch:
		return clock.Sleep(ctx, busyTime)
	}
	return clock.Sleep(ctx, gatherTime)
}

// gapFound notes that the group's feed no longer has what was read last: changes were
// lost before they were read, or the database is another one.
func (f *feedFollower) gapFound(g *group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.gaps++
	f.log.Error("change feed has lost what was not read yet, everything is compared instead",
		"group", g.Name, "alarm", "sessiond_feed_gaps_total")
}

// How often the database is told how far a feed was read, so that it keeps the rest:
// where it goes on, and as a sign of life.
const (
	tellEvery = time.Second
	tellAlive = 5 * time.Second
)

// positionTold is what the database was told of a position, and when.
type positionTold struct {
	entry string
	at    time.Time
}

// tellPosition tells how far the group's feed was read, now and then. What fails is
// told the next time: until then the feed keeps more than it must.
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

// noteSync keeps for readiness why a group could not be taken up.
func (f *feedFollower) noteSync(g *group, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.failure = err
	return err
}

// take applies changes in the order in which the database took them.
func (f *feedFollower) take(g *group, changes []subscriber.Change, last string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.groups[g.Name] != g {
		return // forgotten meanwhile
	}
	now := f.now()
	for i := range changes {
		f.life.Apply(&changes[i], now)
	}
	if last != g.Position {
		g.Position = last
		g.tellMovedLocked()
	}
}

// unfollowed says that the group's feed is not read on until it is taken up anew.
func (f *feedFollower) unfollowed(g *group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.followed = false
	g.tellMovedLocked()
}

// tellMovedLocked wakes who waits for the feed.
func (g *group) tellMovedLocked() {
	close(g.moved)
	g.moved = make(chan struct{})
}

// takenWithin bounds how long a change made here is waited for to come back
// through the feed.
const takenWithin = 2 * time.Second

// await waits, for a bounded time, until the group's feed was taken up to id.
func (f *feedFollower) await(ctx context.Context, g *group, id string) {
	ctx, cancel := context.WithTimeout(ctx, takenWithin)
	defer cancel()
	f.caughtUp(ctx, g, id, false)
}

// caughtUp waits until the group's feed was taken up to id, and reports whether it
// was before ctx ended. Who must not wait for the feed to be taken up anew gives up
// when it is not followed.
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
