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
	scanPause    = time.Second          // between walks where notifications may be missing
	scanShare    = 10                   // a walk is followed by a pause this many times as long
	gatherLimit  = 512                  // notifications that are looked at together
	gatherTime   = time.Millisecond     // from the first of them on
	ownPause     = 5 * time.Millisecond // after some that all told of announced removals
	receiveAlive = 5 * time.Second
	settingPause = time.Second // between looks at whether Redis still notifies
)

// errServersBack ends a subscription: its server may not be the one that its address
// leads to by now.
var errServersBack = errors.New("servers can be used again")

// reasons are the keyspace events that end a key, and why.
var reasons = map[string]subscriber.Reason{
	"del":         subscriber.ReasonRemovedInDatabase, // also of UNLINK
	"expired":     subscriber.ReasonExpired,
	"evicted":     subscriber.ReasonRemovedInDatabase,
	"rename_from": subscriber.ReasonRemovedInDatabase,
	"move_from":   subscriber.ReasonRemovedInDatabase,
}

// Options configure a Watcher. All are required.
type Options struct {
	Client   *redisconn.Client
	Groups   func() []string                                                                    // those in force
	Gone     func(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error) // those of the addresses where no record stands
	Severity func(ctx context.Context) slog.Level                                               // of a failure for want of Redis
	Logger   *slog.Logger
}

// A Watcher notices records that others remove, or that expire.
type Watcher struct {
	o       Options
	notices serverNotices
}

// New returns a Watcher.
func New(o Options) *Watcher { return &Watcher{o: o} }

// WatchRemovals calls gone for records that others removed or that expired, as soon
// as Redis tells, until the context ends; to be handed to AnnounceDeleted. The reason is
// ReasonNone where Redis did not tell. Deletions that
// are announced already are not among them. Notifications are lossy: after each
// connection it looks for missed removals, and where Redis does not let it
// turn notifications on it looks all the time. gone is called from one goroutine
// at a time for each server of a Cluster.
func (w *Watcher) WatchRemovals(ctx context.Context, gone func(subscriber.Key, subscriber.Reason)) error {
	for said := false; ctx.Err() == nil; {
		watching, err := w.watchServers(ctx, gone)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errServersBack):
			said = false
		case watching || !said: // an outage is told of once
			said = true
			w.o.Logger.Log(ctx, w.o.Severity(ctx), "notifications of removed records interrupted", "error", err)
			fallthrough
		default:
			_ = clock.Sleep(ctx, retryPause)
		}
	}
	return nil
}

// watchServers watches all servers until one is lost, then lets go of the others, and
// reports whether it watched any.
func (w *Watcher) watchServers(ctx context.Context, gone func(subscriber.Key, subscriber.Reason)) (watching bool, err error) {
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
		err := w.watchServer(ctx, server, round, gone)
		once.Do(func() { first = err })
		cancel(err)
		return err
	})
	if errors.Is(context.Cause(ctx), errServersBack) {
		return true, errServersBack
	}
	return w.notices.watched(round), cmp.Or(first, err)
}

func (w *Watcher) watchServer(ctx context.Context, server redis.UniversalClient, round int, gone func(subscriber.Key, subscriber.Reason)) error {
	n := serverNotifications{watcher: w, server: server, round: round}
	n.check(ctx)
	events := make([]string, 0, len(reasons))
	for name := range reasons {
		events = append(events, fmt.Sprintf("__keyevent@%d__:%s", redisconn.Database(server), name))
	}
	sub := server.Subscribe(ctx, events...)
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // ends a Receive
	defer stop()
	defer sub.Close()
	for range events { // a confirmation each
		if _, err := sub.Receive(ctx); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	w.notices.watching(round)
	return w.listen(ctx, sub, &scanner{watcher: w, gone: gone}, &n)
}

// listen takes notifications as they come, and sends the scanner out when it is
// due. Receiving in short turns keeps both in one goroutine.
func (w *Watcher) listen(ctx context.Context, sub *redis.PubSub, p *scanner, n *serverNotifications) error {
	l := listener{sub: sub, heard: time.Now()}
	for ctx.Err() == nil {
		if n.checkIfDue(ctx) {
			p.walked = false // for what was not told meanwhile
		}
		p.always = !n.on
		if err := p.walkIfDue(ctx); err != nil {
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
		// Each Stop makes a notification too. Under load they come all the time, and
		// to be woken for each and to ask Redis about it costs more than to look at many.
		if !found && len(batch) > 0 && len(batch) < gatherLimit/2 {
			_ = clock.Sleep(ctx, ownPause)
		}
	}
	return ctx.Err()
}

// listener is one subscription, and when it last gave a sign of life.
type listener struct {
	sub   *redis.PubSub
	heard time.Time
}

// removal is one notification of a record.
type removal struct {
	key    subscriber.Key
	reason subscriber.Reason
}

// gather waits for a notification, and takes those that follow within gatherTime. A
// connection that says nothing is asked for a sign of life, and given up when it
// gives none: Redis may be gone without a word.
func (l *listener) gather(ctx context.Context, patience time.Duration) ([]removal, error) {
	var batch []removal
	var until time.Time
	for len(batch) < gatherLimit {
		msg, err := l.sub.ReceiveTimeout(ctx, patience)
		if timedOut(err) {
			return batch, l.checkAlive(ctx)
		}
		if err != nil && !redisconn.IsAnswer(err) { // a PING is refused like a write, and answered so
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

// parseRemoval reads a notification: the channel names the event, the payload
// the key.
func parseRemoval(m *redis.Message) (removal, bool) {
	key, ok := codec.ParseRecordKey(m.Payload)
	if !ok {
		return removal{}, false
	}
	_, event, _ := strings.Cut(m.Channel, "__:")
	reason, ok := reasons[event]
	return removal{key, reason}, ok
}
