package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// sweepPause is how often SweepRestarts looks for restarts that another daemon
// recorded; those of its own it is told of.
const sweepPause = 2 * time.Second

// SweepRestarts ends the sessions that NAS restarts left behind (SES-15..17),
// those found at start and each new one, until the context ends. What was not
// swept stays on record in Redis. Errors are logged and tried again.
func (db *DB) SweepRestarts(ctx context.Context) error {
	ticker := time.NewTicker(sweepPause)
	defer ticker.Stop()
	for {
		if err := db.sweepAll(ctx); err != nil && ctx.Err() == nil {
			db.logger.Warn("sessions of a restarted NAS not ended yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-db.restarted:
		}
	}
}

func (db *DB) sweepAll(ctx context.Context) error {
	var errs []error
	groups := db.groups.Load()
	for i := range groups.groups {
		errs = append(errs, db.sweepGroup(ctx, &groups.groups[i]))
	}
	return errors.Join(errs...)
}

func (db *DB) sweepGroup(ctx context.Context, g *Group) error {
	pending, err := db.client.SMembers(ctx, restartsKey(g.Name)).Result()
	if err != nil {
		return fmt.Errorf("list restarts of group %q: %w", g.Name, err)
	}
	for _, ref := range pending {
		if err := db.sweepNAS(ctx, g, ref); err != nil {
			return fmt.Errorf("sweep NAS %s in group %q: %w", ref, g.Name, err)
		}
	}
	return nil
}

// sweepNAS ends the sessions of one NAS that are older than its restart. They
// are all in the NAS's set: it is written in one step with the record.
func (db *DB) sweepNAS(ctx context.Context, g *Group, ref string) error {
	nas, err := parseNASRef(ref)
	if err != nil {
		return err
	}
	line, err := db.client.Get(ctx, restartKey(g.Name, nas)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	if restart := parseRestart(line); !restart.At.IsZero() {
		if err := db.endBefore(ctx, g, nas, restart); err != nil {
			return err
		}
	}
	done := &call{
		script: sweptScript, keys: []string{restartKey(g.Name, nas), restartsKey(g.Name)}, args: []any{line, ref},
	}
	db.run(ctx, []*call{done})
	return done.err
}

// endBefore walks the NAS's set until a walk finds nothing more to end: not
// every server keeps the place of a walk in a set that shrinks.
func (db *DB) endBefore(ctx context.Context, g *Group, nas subscriber.SessionID, restart subscriber.Restart) error {
	for {
		n, err := db.endOnce(ctx, g, nas, restart)
		if err != nil || n == 0 {
			return err
		}
		db.logger.Info("sessions of a restarted NAS ended", "group", g.Name, "client", nas.Client, "nas", nas.NAS, "sessions", n)
	}
}

func (db *DB) endOnce(ctx context.Context, g *Group, nas subscriber.SessionID, restart subscriber.Restart) (ended int, err error) {
	index := nasIndexKey(g.Name, nas)
	for cursor := uint64(0); ; {
		members, next, err := db.client.SScan(ctx, index, cursor, "", endBatch).Result()
		if err != nil {
			return ended, err
		}
		n, err := db.endMembers(ctx, g, nas, restart, members)
		ended += n
		if err != nil {
			return ended, err
		}
		if cursor = next; cursor == 0 {
			return ended, nil
		}
	}
}

func (db *DB) endMembers(ctx context.Context, g *Group, nas subscriber.SessionID, restart subscriber.Restart, members []string) (int, error) {
	meant := func(r *subscriber.Record) bool {
		return r.Client == nas.Client && r.NAS == nas.NAS && restart.Ends(r)
	}
	steps := make([]*step, 0, len(members))
	for _, m := range members {
		inside, err := netip.ParseAddr(m)
		if err != nil {
			return 0, fmt.Errorf("member %q: %w", m, err)
		}
		key := subscriber.Key{Group: g.Name, Inside: inside}
		steps = append(steps, endStep(g, key, meant, subscriber.ReasonNASRestart, restart.At))
	}
	ended, err := db.endAll(ctx, steps)
	return len(ended), err
}
