package session

import (
	"context"
	"errors"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
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

// follow keeps one group in step with its change feed. A gap in the feed, or a
// database that was away, costs a comparison in full.
func (m *Manager) follow(ctx context.Context, g *group) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.kernel.Ready():
	}
	for {
		err := m.retryStore(ctx, "read group "+g.Name+" from the database", func(ctx context.Context) error {
			if err := m.keepServed(ctx, g, false); err != nil || ctx.Err() != nil {
				return m.noteSync(g, errors.Join(err, ctx.Err())) // what is served is stored before anything of it can be used
			}
			return m.noteSync(g, m.sync(ctx, g))
		})
		if err != nil {
			return err
		}
		err = m.drainFeed(ctx, g)
		m.unfollowed(g)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, subscriberdb.ErrFeedGap):
			m.gapFound(g)
		default:
			m.log.Log(ctx, m.storeSeverity(ctx), "change feed interrupted", "group", g.Name, "err", err)
		}
	}
}

// drainFeed takes changes until the feed fails.
func (m *Manager) drainFeed(ctx context.Context, g *group) error {
	var room []subscriber.Change
	var told positionTold
	for wait := feedBlock; ; {
		changes, last, err := m.store.Feed(ctx, g.Name, m.positionOf(g), feedBatch, wait, room)
		if err != nil {
			return err
		}
		m.take(g, changes, last)
		m.tellPosition(ctx, g, &told)
		n := len(changes)
		clear(changes)
		room = changes // none where nothing happens: the memory of a storm is not kept
		if wait = feedBlock; n >= busyBatch {
			wait = 0 // for what has gathered meanwhile
		}
		if err := m.gatherMore(ctx, n); err != nil {
			return err
		}
	}
}

// gatherMore waits a little after something was done, unless there is a full
// batch more to be done.
func (m *Manager) gatherMore(ctx context.Context, done int) error {
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
func (m *Manager) gapFound(g *group) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.gaps++
	m.log.Error("change feed has lost what was not read yet, everything is compared instead",
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
func (m *Manager) tellPosition(ctx context.Context, g *group, told *positionTold) {
	entry, since := m.positionOf(g), time.Since(told.at)
	if since < tellEvery || entry == told.entry && since < tellAlive {
		return
	}
	told.at = time.Now()
	if m.store.TellPosition(ctx, g.Name, m.node, entry) == nil {
		told.entry = entry
	}
}

func (m *Manager) positionOf(g *group) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return g.position
}

// noteSync keeps for readiness why a group could not be taken up.
func (m *Manager) noteSync(g *group, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.failure = err
	return err
}

// take applies changes in the order in which the database took them.
func (m *Manager) take(g *group, changes []subscriber.Change, last string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.groups[g.Name] != g {
		return // forgotten meanwhile
	}
	now := m.now()
	for i := range changes {
		m.life.Apply(&changes[i], now)
	}
	if last != g.position {
		g.position = last
		g.tellMovedLocked()
	}
}

// unfollowed says that the group's feed is not read on until it is taken up anew.
func (m *Manager) unfollowed(g *group) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.followed = false
	g.tellMovedLocked()
}

// tellMovedLocked wakes who waits for the feed.
func (g *group) tellMovedLocked() {
	close(g.moved)
	g.moved = make(chan struct{})
}
