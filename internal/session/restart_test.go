package session

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// unreadRestarts are restarts of a NAS with n subscribers that the follower of their
// feed does not read as they happen. However that is, all end because of the restart,
// and the guard has nothing to do with it.
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

// sweepAlone has another daemon record and carry out the restart while this one is away.
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

// while runs a task while something is waited for.
func (w *world) while(task func(context.Context) error, wait func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = task(ctx) })
	defer running.Wait()
	defer cancel()
	wait()
}

// awaitSwept waits until the database has nobody online, and no restart to sweep.
func (w *world) awaitSwept() {
	w.t.Helper()
	ctx := context.Background()
	w.within(minutes, "the sweep", func() bool {
		return w.client.HLen(ctx, "sessiond:{default}:online").Val()+w.client.SCard(ctx, "sessiond:{default}:restarts").Val() == 0
	})
}

// feedGaps is how often the follower found its feed cut.
func (w *world) feedGaps() int {
	w.t.Helper()
	s, err := w.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Groups[0].FeedGaps
}

// restartWhileAway: the daemon is down meanwhile, and the feed far longer than is kept
// of what is read.
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

// restartBeyondBound: of the feed nothing is left that it tells of when the daemon comes
// back. All that it knows of the sessions is in the bindings.
func restartBeyondBound(t testing.TB, n int) {
	w := newMultitude(t, n)
	w.halt()
	w.sweepAlone()
	w.client.XTrimMaxLen(context.Background(), "sessiond:{default}:feed", 1)
	w.boot()
	w.awaitNothingLeft()
	w.onlyRestarted(n)
}

// restartWhileStalled: the follower hangs meanwhile, and finds all behind its position.
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

// restartStalledBeyondBound: the follower hangs until the feed has lost most of it.
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

// stall has the feed not read from the next boot on, until the function is called.
func (w *world) stall() (release func()) {
	stalled := make(chan struct{})
	release = sync.OnceFunc(func() { close(stalled) })
	w.t.Cleanup(release)
	w.store = func(db *subscriberdb.DB) Store { return &stalledFeed{db, stalled} }
	return release
}

// killBetween: the daemon dies in the middle of it, and another goes on.
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

// awaitTold waits until the database knows how far the feed was read.
func (w *world) awaitTold() {
	w.t.Helper()
	ctx := context.Background()
	w.until("the position to be told", func() bool {
		told := w.client.HGet(ctx, "sessiond:{default}:readers", "test").Val()
		tail, err := w.db.Tail(ctx, "default")
		return err == nil && len(told) > len(tail) && told[:len(tail)] == tail
	})
}
