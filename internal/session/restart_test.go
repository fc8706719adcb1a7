package session

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// unreadRestarts are restarts of a NAS with n subscribers during which the
// follower does not read their feed. In each case all removals have the restart
// as reason, and the guard suspends none.
var unreadRestarts = map[string]func(t testing.TB, n int){
	"away":                 restartWhileAway,
	"away beyond bound":    restartBeyondBound,
	"stalled":              restartWhileStalled,
	"stalled beyond bound": restartStalledBeyondBound,
	"killed between":       killBetween,
}

// TestNASRestartUnread_SES16_DEL13: see unreadRestarts.
func TestNASRestartUnread_SES16_DEL13(t *testing.T) {
	for name, body := range unreadRestarts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body(t, 3_000)
		})
	}
}

// sweepAlone makes another daemon record and execute the restart while this one is
// away.
func (w *world) sweepAlone() {
	w.t.Helper()
	db, err := subscriberdb.New(subscriberdb.Options{
		Client: w.client, Node: "other", Logger: slog.New(slog.DiscardHandler), FeedLength: w.feedLength, FeedLimit: w.feedLimit,
		Groups: []subscriberdb.Group{{Name: w.group.Name, Inside: w.group.Inside, RecordTTL: w.ttl, Guard: w.guard}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = db
	w.endOfNAS()
	w.while(func(ctx context.Context) error { return db.SweepRestarts(ctx, nil) }, w.awaitSwept)
	w.while(db.TrimFeeds, func() {
		w.until("the feed to be trimmed", func() bool { return db.FeedFill(w.group.Name) > 0 })
	})
}

// while runs a task until wait returns.
func (w *world) while(task func(context.Context) error, wait func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = task(ctx) })
	defer running.Wait()
	defer cancel()
	wait()
}

// awaitSwept waits until the database has no online subscriber, and no restart
// to sweep.
func (w *world) awaitSwept() {
	w.t.Helper()
	ctx := context.Background()
	w.within(minutes, "the sweep", func() bool {
		return w.client.HLen(ctx, "sessiond:{default}:online").Val()+w.client.SCard(ctx, "sessiond:{default}:restarts").Val() == 0
	})
}

// feedGaps returns how often the follower found a gap in its feed.
func (w *world) feedGaps() int {
	w.t.Helper()
	s, err := w.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Groups[0].FeedGaps
}

// restartWhileAway: the daemon is down meanwhile, and the feed is far longer
// than is kept of entries already read.
func restartWhileAway(t testing.TB, n int) {
	w := newMultitude(t, n)
	w.awaitTold()
	w.halt()
	w.feedLength = 10
	w.sweepAlone()
	if kept := w.client.XLen(context.Background(), "sessiond:{default}:feed").Val(); kept < int64(n/64) {
		t.Errorf("%d entries are kept of a feed that was not read", kept)
	}
	w.boot()
	w.awaitNothingLeft()
	w.onlyRestarted(n)
}

// restartBeyondBound: when the daemon comes back, the feed has lost all
// changes of the restart. Only the bindings still show the sessions.
func restartBeyondBound(t testing.TB, n int) {
	w := newMultitude(t, n)
	w.halt()
	w.sweepAlone()
	w.client.XTrimMaxLen(context.Background(), "sessiond:{default}:feed", 1)
	w.boot()
	w.awaitNothingLeft()
	w.onlyRestarted(n)
}

// restartWhileStalled: the follower stalls meanwhile, and then finds all
// entries after its position.
func restartWhileStalled(t testing.TB, n int) {
	w := newMultitude(t, n)
	w.awaitTold()
	w.halt()
	w.feedLength = 10
	release := w.stall()
	w.boot()
	w.endOfNAS()
	w.awaitSwept()
	release()
	w.awaitNothingLeft()
	w.onlyRestarted(n)
	if gaps := w.feedGaps(); gaps != 0 {
		t.Errorf("%d gaps in a feed that was to be kept", gaps)
	}
}

// restartStalledBeyondBound: the follower stalls until the feed has lost most
// entries.
func restartStalledBeyondBound(t testing.TB, n int) {
	w := newMultitude(t, n)
	w.halt()
	w.feedLength, w.feedLimit = 10, 10
	release := w.stall()
	w.boot()
	w.endOfNAS()
	w.awaitSwept()
	release()
	w.awaitNothingLeft()
	w.onlyRestarted(n)
	if gaps := w.feedGaps(); gaps != 1 {
		t.Errorf("%d gaps were found in a feed that was cut", gaps)
	}
}

// stall blocks the feed from the next boot on, until release is called.
func (w *world) stall() (release func()) {
	stalled := make(chan struct{})
	release = sync.OnceFunc(func() { close(stalled) })
	w.t.Cleanup(release)
	w.store = func(db *subscriberdb.DB) Store { return &stalledFeed{db, stalled} }
	return release
}

// killBetween: the daemon dies in the middle, and another one continues.
func killBetween(t testing.TB, n int) {
	w := newMultitude(t, n)
	w.endOfNAS()
	w.within(minutes, "the sweep to have begun", func() bool { return w.left() < n })
	w.halt()
	before := w.seen
	w.boot()
	w.awaitNothingLeft()
	w.awaitSwept()
	for _, seen := range []*counts{before, w.seen} {
		seen.mu.Lock()
		for why, k := range seen.removed {
			if why != subscriber.ReasonNASRestart {
				t.Errorf("%d were removed for %s", k, why)
			}
		}
		seen.mu.Unlock()
	}
	w.nobodyHeld()
}

// awaitTold waits until the database knows the position of the follower.
func (w *world) awaitTold() {
	w.t.Helper()
	ctx := context.Background()
	w.until("the position to be told", func() bool {
		told := w.client.HGet(ctx, "sessiond:{default}:readers", "test").Val()
		tail, err := w.db.Tail(ctx, "default")
		return err == nil && len(told) > len(tail) && told[:len(tail)] == tail
	})
}
