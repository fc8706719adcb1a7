package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// Timing of Probe.
const (
	probeTime = time.Second      // a server that takes longer cannot be used
	probeTTL  = 10 * time.Second // of what a probe writes

	// Connections are given up so often while a server fails. One that says why it
	// takes no writes for a while is waited for, but its address may be moved, too.
	redialPause = time.Second
	waitPause   = 5 * time.Second
)

// Probe makes sure that accounting can be recorded, or says why it cannot: it commits
// as accounting does, in every group, and so on every server that has any of them. A
// ping would be answered by a server that is full, or a replica.
func (db *DB) Probe(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := db.probeGroups(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		err = fmt.Errorf("no answer within %v", probeTime)
	}
	if ctx.Err() == nil {
		db.health.probed(err, db.redials)
	}
	return err
}

func (db *DB) probeGroups(ctx context.Context) error {
	groups := db.groups.Load()
	cmds := make([]redis.Cmder, 0, 3*len(groups.groups)+1)
	for i := range groups.groups {
		g := &groups.groups[i]
		// Nothing of the group goes on where one of these two is of another type.
		cmds = append(cmds, db.probeCall(ctx, g), redis.NewIntCmd(ctx, "xlen", g.feed), redis.NewIntCmd(ctx, "hlen", g.online))
	}
	cmds = append(cmds, db.probeCall(ctx, &groups.reserved))
	failed := db.exchange(ctx, cmds)
	for _, cmd := range cmds {
		switch err := answered(cmd, failed); {
		case wrongType(err):
			return fmt.Errorf("key %v is of another type, as somebody made it: delete it (docs/redis.md): %w", cmd.Args()[1], err)
		case err != nil:
			return fmt.Errorf("write to redis: %w", err)
		}
	}
	return db.probeSingly(ctx)
}

// probeSingly asks as everything but accounting does: the client has other connections
// for single commands than for many at once, and dials those no sooner than a second
// after it failed. Who is told that Redis can be used must find it so.
func (db *DB) probeSingly(ctx context.Context) error {
	if err := db.client.Get(ctx, codec.ProbeKey(codec.Reserved, db.node)).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read from redis: %w", err)
	}
	return nil
}

// probeCall is a call of commitScript that writes an expiring key of this daemon's, and
// nothing else, under no condition.
func (db *DB) probeCall(ctx context.Context, g *Group) redis.Cmder {
	return newCall(ctx, commitScript, []string{g.feed, g.online, codec.ProbeKey(g.Name, db.node)},
		db.feedLimit, false, 5, 0, "set", 3, codec.FormatTime(db.now()), probeTTL.Milliseconds())
}

// Trouble tells that a commit failed since the last look, so that a probe is due.
func (db *DB) Trouble() <-chan struct{} { return db.health.trouble }

// severity is how bad it is that something failed for want of Redis: that it cannot be
// used is told by who probes it.
func (db *DB) severity(ctx context.Context) slog.Level {
	if db.health.known() || db.Probe(ctx) != nil {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// writeFailed notes that a commit of accounting failed.
func (db *DB) writeFailed(err error) {
	if errors.Is(err, context.Canceled) {
		return // it says nothing of the server
	}
	if astray(err) {
		db.health.failed(err, db.redials)
	}
	select {
	case db.health.trouble <- struct{}{}:
	default:
	}
}

// astray reports whether the address may lead to another server by now, which takes
// writes: a replica answered, or one that starts, or nobody did. Others say themselves
// that they take none at present: full, not able to store, configured not to.
func astray(err error) bool {
	if !redisSaid(err) || redis.IsReadOnlyError(err) {
		return true
	}
	for _, prefix := range []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// IsFull reports whether Redis refused a write because it has no memory left.
func IsFull(err error) bool { return redis.HasErrorPrefix(err, "OOM") }

// serverHealth is what probes and commits have found of the servers.
type serverHealth struct {
	trouble chan struct{} // holds one

	mu      sync.Mutex
	failing bool
	gaveUp  time.Time     // when connections were last given up
	back    chan struct{} // closed when servers that failed can be used again
}

func newServerHealth() *serverHealth {
	return &serverHealth{trouble: make(chan struct{}, 1), back: make(chan struct{})}
}

// probed notes what a probe came to. Once servers can be used again, connections that
// were made meanwhile may still lead to those before.
func (h *serverHealth) probed(err error, r *redials) {
	if err != nil {
		h.failed(err, r)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.failing {
		return
	}
	h.failing = false
	r.giveUp()
	close(h.back)
	h.back = make(chan struct{})
}

// failed gives connections up, if that was not done just now. One that fails for long
// is not dialled all the time.
func (h *serverHealth) failed(err error, r *redials) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = true
	pause := waitPause
	if astray(err) {
		pause = redialPause
	}
	if now := time.Now(); now.Sub(h.gaveUp) >= pause {
		h.gaveUp = now
		r.giveUp()
	}
}

// known reports whether it is known that servers cannot be used.
func (h *serverHealth) known() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failing
}

// usable returns a channel that is closed when servers that failed can be used again.
func (h *serverHealth) usable() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.back
}
