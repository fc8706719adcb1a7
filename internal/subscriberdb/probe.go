package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// Timing of Probe.
const (
	probeTime = time.Second      // a server that takes longer counts as unusable
	probeTTL  = 10 * time.Second // of the key that a probe writes
)

// prober finds out whether Redis can be used.
type prober struct {
	*shared
	txns *txn.Engine
	node string // name of this daemon
}

// Probe returns nil if accounting can be recorded, else the reason. It commits as
// accounting does, in every group, and so on every server that holds one. A ping would
// succeed on a server that is full, and on a replica.
func (p *prober) Probe(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := p.probeGroups(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		err = fmt.Errorf("no answer within %v", probeTime)
	}
	if ctx.Err() == nil {
		p.client.Probed(err)
	}
	return err
}

func (p *prober) probeGroups(ctx context.Context) error {
	groups := p.inForce()
	cmds := make([]redis.Cmder, 0, 3*len(groups.groups)+1)
	for i := range groups.groups {
		g := &groups.groups[i]
		// If one of these two keys has another type, every transaction of the group fails.
		cmds = append(cmds, p.probeCall(ctx, g), redis.NewIntCmd(ctx, "xlen", g.txns.Feed), redis.NewIntCmd(ctx, "hlen", g.txns.Online))
	}
	cmds = append(cmds, p.probeCall(ctx, &groups.reserved))
	failed := p.client.Exchange(ctx, cmds)
	for _, cmd := range cmds {
		switch err := redisconn.Answered(cmd, failed); {
		case redisconn.IsWrongType(err):
			return fmt.Errorf("key %v is of another type, as somebody made it: delete it (docs/redis.md): %w", cmd.Args()[1], err)
		case err != nil:
			return fmt.Errorf("write to redis: %w", err)
		}
	}
	return p.probeSingly(ctx)
}

// probeSingly sends a single command as all code but accounting does. The client uses
// separate connections for single commands, and redials those only a second after a
// failure. After a successful Probe both kinds must work.
func (p *prober) probeSingly(ctx context.Context) error {
	if err := p.client.Get(ctx, codec.ProbeKey(codec.Reserved, p.node)).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read from redis: %w", err)
	}
	return nil
}

// probeCall returns a call of accounting's own script that writes an expiring key of this
// daemon, and nothing else.
func (p *prober) probeCall(ctx context.Context, g *Group) redis.Cmder {
	return p.txns.WriteCall(ctx, g.txns, codec.ProbeKey(g.Name, p.node), codec.FormatTime(p.now()), probeTTL)
}

// Trouble receives after a commit failed, so that a probe is due.
func (p *prober) Trouble() <-chan struct{} { return p.client.Trouble() }

// IsFull reports whether Redis refused a write because it has no memory left.
func IsFull(err error) bool { return redisconn.IsFull(err) }

// severity returns the log level for a failure of Redis: low if Redis is unusable as a
// whole, because the probing task reports that.
func (p *prober) severity(ctx context.Context) slog.Level {
	if p.client.Failing() || p.Probe(ctx) != nil {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}
