package redisconn

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

// PipelineLimit bounds the commands of one round trip: all must be answered within the
// client's read timeout.
const PipelineLimit = 512

// NewCall returns the call of a script.
func NewCall(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	list := make([]any, 0, 3+len(keys)+len(args))
	list = append(list, "evalsha", script.Hash(), len(keys))
	for _, key := range keys {
		list = append(list, key)
	}
	return redis.NewCmd(ctx, append(list, args...)...)
}

// Call calls a script.
func (c *Client) Call(ctx context.Context, script *redis.Script, keys []string, args ...any) (*redis.Cmd, error) {
	call := NewCall(ctx, script, keys, args...)
	return call, c.Exchange(ctx, []redis.Cmder{call})
}

// Exchange sends the commands in order, many in one round trip, and returns the first
// error. If a server does not have a script, because it is new or lost its memory, Exchange
// loads the scripts and repeats the call.
func (c *Client) Exchange(ctx context.Context, cmds []redis.Cmder) error {
	var first error
	for chunk := range slices.Chunk(cmds, PipelineLimit) {
		if err := c.exchangeChunk(ctx, chunk); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (c *Client) exchangeChunk(ctx context.Context, cmds []redis.Cmder) error {
	err := Pipeline(ctx, c.UniversalClient, cmds)
	again := unknownScripts(cmds)
	if len(again) == 0 {
		return err
	}
	cluster, ok := c.UniversalClient.(*redis.ClusterClient)
	if !ok { // load and call in one round trip, because another connection may lead to another server
		return Pipeline(ctx, c.UniversalClient, append(c.loadScripts(ctx), again...))
	}
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, server *redis.Client) error {
		return Pipeline(ctx, server, c.loadScripts(ctx))
	})
	if err != nil {
		err = fmt.Errorf("load scripts: %w", err)
		for _, c := range again {
			c.SetErr(err)
		}
		return err
	}
	return Pipeline(ctx, cluster, again)
}

// Pipeline sends the commands, at most PipelineLimit and no calls of scripts, in one round
// trip.
func Pipeline(ctx context.Context, client redis.UniversalClient, cmds []redis.Cmder) error {
	pipe := client.Pipeline()
	_ = pipe.BatchProcess(ctx, cmds...) // queues
	_, err := pipe.Exec(ctx)
	return err
}

// Together executes all of the commands in one step (MULTI).
func (c *Client) Together(ctx context.Context, cmds []redis.Cmder) error {
	if len(cmds) == 1 {
		return c.Process(ctx, cmds[0])
	}
	_, err := c.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, cmd := range cmds {
			_ = pipe.Process(ctx, cmd) // queues
		}
		return nil
	})
	return err
}

func unknownScripts(cmds []redis.Cmder) []redis.Cmder {
	var unknown []redis.Cmder
	for _, c := range cmds {
		if err := c.Err(); err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
			c.SetErr(nil)
			unknown = append(unknown, c)
		}
	}
	return unknown
}

// loadScripts returns the commands that load all scripts.
func (c *Client) loadScripts(ctx context.Context) []redis.Cmder {
	var loads scriptLoads
	for _, s := range c.scripts {
		s.Load(ctx, &loads)
	}
	return loads.cmds
}

// errNotLoaded is the answer to a script's load until the command is sent: without an error
// the script would take the empty answer for its hash.
var errNotLoaded = errors.New("script is not loaded yet")

// scriptLoads collects the load commands of scripts. A redis.Script does not give its text
// away, only loads itself.
type scriptLoads struct {
	redis.Scripter // only ScriptLoad is called
	cmds           []redis.Cmder
}

// ScriptLoad implements redis.Scripter.
func (l *scriptLoads) ScriptLoad(ctx context.Context, text string) *redis.StringCmd {
	l.cmds = append(l.cmds, redis.NewStringCmd(ctx, "script", "load", text))
	later := redis.NewStringCmd(ctx)
	later.SetErr(errNotLoaded)
	return later
}
