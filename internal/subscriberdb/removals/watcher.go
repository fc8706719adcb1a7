package removals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Timing of WatchRemovals.
const (
	retryPause   = time.Second          // after a connection was lost
	scanTurn     = time.Millisecond     // for notifications, between two batches of a scan
	scanPause    = time.Second          // between scans while notifications may be missing
	scanShare    = 10                   // a scan is followed by a pause of this many times its duration
	gatherLimit  = 512                  // most notifications that are checked together
	gatherTime   = time.Millisecond     // the time for which they are gathered after the first
	ownPause     = 5 * time.Millisecond // after a batch in which all removals were announced
	receiveAlive = 5 * time.Second
	settingPause = time.Second // between checks whether Redis still notifies
)

// errServersBack ends a subscription after failed servers became usable again, because its
// server may not be the one that the address leads to now.
var errServersBack = errors.New("servers can be used again")

// reasons maps the keyspace events that end a key to the reason.
var reasons = map[string]subscriber.Reason{
	"del":         subscriber.ReasonRemovedInDatabase, // also for UNLINK
	"expired":     subscriber.ReasonExpired,
	"evicted":     subscriber.ReasonRemovedInDatabase,
	"rename_from": subscriber.ReasonRemovedInDatabase,
	"move_from":   subscriber.ReasonRemovedInDatabase,
}

// Options configure a Watcher. All are required.
type Options struct {
	Client   *redisconn.Client
	Groups   func() []string                                                                    // the groups in force
	Gone     func(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error) // returns the addresses without a record
	Severity func(ctx context.Context) slog.Level                                               // log level of a failure of Redis
	Logger   *slog.Logger
}

// A Watcher detects records that other programs remove, or that expire.
type Watcher struct {
	o       Options
	notices serverNotices
}

// New returns a Watcher.
func New(o Options) *Watcher { return &Watcher{o: o} }

// WatchRemovals calls gone for each record that another program removed or that expired, as
// soon as Redis notifies, until the context ends; gone should call AnnounceDeleted. The
// reason is ReasonNone if there was no notification. Removals that are announced already
// are left out. Notifications can be lost: it scans a group for missed removals after each
// connection, and all the time if Redis does not let it turn notifications on; but not
// before scan says that the group is to be scanned, which it asks once a second. gone is
// called from one goroutine at a time for each server of a Cluster.
func (w *Watcher) WatchRemovals(ctx context.Context, scan func(group string) bool, gone func(subscriber.Key, subscriber.Reason)) error {
	for said := false; ctx.Err() == nil; {
		watching, err := w.watchServers(ctx, scan, gone)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errServersBack):
			said = false
		case watching || !said: // an outage is logged once
			said = true
			w.o.Logger.Log(ctx, w.o.Severity(ctx), "notifications of removed records interrupted", "error", err)
			fallthrough
		default:
			_ = clock.Sleep(ctx, retryPause)
		}
	}
	return nil
}

// watchServers watches all servers until one is lost, then ends the other subscriptions,
// and reports whether it had any.
func (w *Watcher) watchServers(ctx context.Context, scan func(string) bool, gone func(subscriber.Key, subscriber.Reason)) (watching bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var back sync.WaitGroup
	defer back.Wait()
	defer cancel(nil)
	usable := w.o.Client.Usable()
	back.Go(func() {
		select {
		case <-usable:
			cancel(errServersBack)
		case <-ctx.Done():
		}
	})
	round := w.notices.begin()
	var once sync.Once
	var first error
	err = w.o.Client.EachMaster(ctx, func(ctx context.Context, server redis.UniversalClient) error {
		err := w.watchServer(ctx, server, round, newScanner(w, scan, gone))
		once.Do(func() { first = err })
		cancel(err)
		return err
	})
	if errors.Is(context.Cause(ctx), errServersBack) {
		return true, errServersBack
	}
	return w.notices.watched(round), cmp.Or(first, err)
}

func (w *Watcher) watchServer(ctx context.Context, server redis.UniversalClient, round int, missed *scanner) error {
	n := serverNotifications{watcher: w, server: server, round: round}
	n.check(ctx)
	events := make([]string, 0, len(reasons))
	for name := range reasons {
		events = append(events, fmt.Sprintf("__keyevent@%d__:%s", redisconn.Database(server), name))
	}
	sub := server.Subscribe(ctx, events...)
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // ends a blocked Receive
	defer stop()
	defer sub.Close()
	for range events { // one confirmation for each event
		if _, err := sub.Receive(ctx); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	w.notices.watching(round)
	return w.listen(ctx, sub, missed, &n)
}

// listen processes notifications as they arrive, and runs the scanner when it is due. It
// receives with short timeouts to do both in one goroutine.
func (w *Watcher) listen(ctx context.Context, sub *redis.PubSub, p *scanner, n *serverNotifications) error {
	l := listener{sub: sub, heard: time.Now()}
	for ctx.Err() == nil {
		if n.checkIfDue(ctx) {
			p.restart() // for removals that were not notified meanwhile
		}
		p.always = !n.on
		if err := p.step(ctx); err != nil {
			return err
		}
		batch, err := l.gather(ctx, p.patience())
		if err != nil {
			return fmt.Errorf("receive notifications: %w", err)
		}
		found, err := p.check(ctx, batch)
		if err != nil {
			return err
		}
		// Each Stop causes a notification too. Under load they arrive all the time, and to
		// wake up and ask Redis for each costs more than to check many at once.
		if !found && len(batch) > 0 && len(batch) < gatherLimit/2 {
			_ = clock.Sleep(ctx, ownPause)
		}
	}
	return ctx.Err()
}

// listener is one subscription, and the time of its last sign of life.
type listener struct {
	sub   *redis.PubSub
	heard time.Time
}

// removal is one notification of a record.
type removal struct {
	key    subscriber.Key
	reason subscriber.Reason
}

// gather waits for a notification, and takes those that follow within gatherTime. On a
// silent connection it sends a PING, and gives the connection up if that is not answered:
// the connection may have broken without a notice.
func (l *listener) gather(ctx context.Context, patience time.Duration) ([]removal, error) {
	var batch []removal
	var until time.Time
	for len(batch) < gatherLimit {
		msg, err := l.sub.ReceiveTimeout(ctx, patience)
		if timedOut(err) {
			return batch, l.checkAlive(ctx)
		}
		if err != nil && !redisconn.IsAnswer(err) { // an error that Redis answers to the PING is a sign of life too
			return batch, err
		}
		l.heard = time.Now()
		if m, ok := msg.(*redis.Message); ok {
			if r, ok := parseRemoval(m); ok {
				batch = append(batch, r)
			}
		}
		switch {
		case until.IsZero():
			until = l.heard.Add(gatherTime)
		case l.heard.After(until):
			return batch, nil
		}
		patience = gatherTime
	}
	return batch, nil
}

func (l *listener) checkAlive(ctx context.Context) error {
	switch silent := time.Since(l.heard); {
	case silent > 3*receiveAlive:
		return fmt.Errorf("silent for %v", silent)
	case silent > receiveAlive/2:
		return l.sub.Ping(ctx)
	}
	return nil
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// parseRemoval parses a notification: the channel has the event, the payload the key.
func parseRemoval(m *redis.Message) (removal, bool) {
	key, ok := codec.ParseRecordKey(m.Payload)
	if !ok {
		return removal{}, false
	}
	_, event, _ := strings.Cut(m.Channel, "__:")
	reason, ok := reasons[event]
	return removal{key, reason}, ok
}
